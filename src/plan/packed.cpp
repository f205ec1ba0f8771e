#include "plan/packed.hpp"

#include "families/family.hpp"
#include "families/unpack.hpp"
#include "plan/search_space.hpp"
#include "plan/work.hpp"

#include <limits>

namespace smlora::plan {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

double fastest(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts) {
    const tuning::SearchSpace space = search_space(problem, request, Role::product, facts);
    const auto best = tuning::heuristic_choice(space);
    return best ? space[*best].predicted_seconds : never;
}

/// Share of the memory's bandwidth that kernels reach which read and write each byte once.
constexpr double share_of_bandwidth = 0.75;

double seconds_to_unpack(const Problem& problem, const gpu::DeviceFacts& facts) {
    // What is written is read again by the product, which its own prediction has. By 48 timings of the H200 on
    // 2026-12-01.
    constexpr double share_that_unpacking_reaches = 0.9;
    const auto bytes = static_cast<double>(families::unpacked_bytes(problem, problem.E));
    return 1.25 * bytes / (share_that_unpacking_reaches * facts.memory_bytes_per_second);
}

/// Of the rows, where the product takes them permuted.
double seconds_to_permute(const Problem& problem, const families::ProductWork& work, const gpu::DeviceFacts& facts) {
    const double rows = work.tokens * (work.product.rows == RowOrder::token ? 1.0 : static_cast<double>(problem.top_k));
    constexpr double seconds_at_least = 5e-6;
    return seconds_at_least +
           4 * rows * static_cast<double>(work.product.red) / (share_of_bandwidth * facts.memory_bytes_per_second);
}

constexpr const char* unpacking = "unpack_weights";

tuning::Candidate unpacking_candidate(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts) {
    tuning::Candidate candidate;
    candidate.name = "unpack";
    candidate.configuration.family = unpacking;
    const double product = fastest(with_plain_weights(problem), with_plain_weights(request), facts);
    candidate.predicted_seconds = product + seconds_to_unpack(problem, facts);
    if (product == never) candidate.refusal = "no product of plain weights fits " + facts.name;
    return candidate;
}

}  // namespace

tuning::SearchSpace decoding_space(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts) {
    tuning::SearchSpace space = search_space(problem, request, Role::product, facts);
    const families::ProductWork work = product_work(problem, request, Role::product);
    const double permuting = seconds_to_permute(problem, work, facts);
    for (tuning::Candidate& candidate : space) {
        if (families::takes_permuted_rows(work.product, candidate.configuration)) {
            candidate.predicted_seconds += permuting;
        }
    }
    space.push_back(unpacking_candidate(problem, request, facts));
    return space;
}

Request with_the_faster_product(const Problem& problem, Request request, const gpu::DeviceFacts& facts,
                                const Choices& choices) {
    if (!packed(request)) return request;
    if (configuration_for(problem, request, Role::decoding, facts, choices).family != unpacking) return request;
    std::visit(
        [](auto& one) {
            if constexpr (requires { one.packed; }) one.packed = false;
        },
        request);
    return request;
}

}  // namespace smlora::plan
