#include "ops/projection_scratch.hpp"

#include "families/family.hpp"
#include "families/gradients.hpp"
#include "families/pack.hpp"
#include "families/product_launch.hpp"
#include "families/unpack.hpp"
#include "families/unpacked_product.hpp"

namespace smlora::ops {

ProjectionScratch::ProjectionScratch(const Problem& problem, std::int64_t M, const ScratchNeeds& needs) {
    if (needs.xa) xa = memory.reserve(families::rank_rows_bytes(problem, M));
    if (needs.yb) yb = memory.reserve(families::rank_rows_bytes(problem, M));
    if (needs.product) product = memory.reserve(families::product_scratch_bytes(problem, M));
    if (needs.summed_columns > 0) {
        rows = memory.reserve(M * needs.summed_columns * static_cast<std::int64_t>(size_of(problem.dtype)));
    }
    if (needs.packed_a) packed_a = memory.reserve(families::packed_a_bytes(problem));
    if (needs.packed_b) packed_b = memory.reserve(families::packed_b_bytes(problem));
    if (needs.partials_a) partials_a = memory.reserve(families::partials_bytes(problem, problem.K, M));
    if (needs.partials_b) partials_b = memory.reserve(families::partials_bytes(problem, problem.N, M));
    if (needs.permuted_elements > 0) {
        permuted = memory.reserve(needs.permuted_elements * static_cast<std::int64_t>(size_of(problem.dtype)));
    }
    if (needs.unpacked_experts > 0) {
        weights = memory.reserve(families::unpacked_bytes(problem, needs.unpacked_experts));
        slice = memory.reserve(families::slice_rows_bytes(problem, needs.unpacked_experts));
    }
}

}  // namespace smlora::ops
