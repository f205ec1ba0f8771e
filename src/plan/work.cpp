#include "plan/work.hpp"

#include <cmath>

namespace smlora::plan {
namespace {

families::Product product_of(const Problem& problem, const Request& request, Role role) {
    if (role == Role::xa) return families::xa_product(problem);
    if (role == Role::yb) return families::yb_product(problem);
    if (const auto* dx = std::get_if<BackwardInput>(&request))
        return families::dx_product(problem, dx->gates != BackwardInput::Gates::applied);
    return families::forward_product(problem);
}

double tokens(std::uint8_t bucket) { return std::ldexp(1.0, bucket); }

}  // namespace

std::optional<Role> rank_role(const Request& request) {
    if (std::holds_alternative<Forward>(request)) return Role::xa;
    if (std::holds_alternative<BackwardInput>(request)) return Role::yb;
    return std::nullopt;
}

families::ProductWork product_work(const Problem& problem, const Request& request, Role role) {
    families::ProductWork work{problem, product_of(problem, request, role), tokens(bucket(request))};
    if (role != Role::product) return work;
    work.product.packed = packed(request);
    const Unpack* const unpack = unpack_of(request);
    if (unpack != nullptr && !work.product.packed) work.product.slice = unpack->slice;
    return work;
}

families::GradientWork gradient_work(const Problem& problem, const BackwardLora& request) {
    return {problem, request.wants_da, request.wants_db, tokens(request.bucket)};
}

}  // namespace smlora::plan
