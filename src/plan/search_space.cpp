#include "plan/search_space.hpp"

#include "families/projection_products.hpp"
#include "families/tiles.hpp"
#include "families/wgmma_blocking.hpp"

#include <smlora/error.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

namespace smlora::plan {
namespace {

double routed_rows(const Problem& problem, const Variant& variant) {
    return std::ldexp(1.0, variant.bucket) * static_cast<double>(problem.top_k);
}

/// Rows of a tensor in this order.
double rows_in(const Problem& problem, const Variant& variant, RowOrder order) {
    return order == RowOrder::token ? std::ldexp(1.0, variant.bucket) : routed_rows(problem, variant);
}

families::ProductSize size_of_product(const Problem& problem, const Variant& variant,
                                      const families::ProductKernel& product) {
    const double rows = routed_rows(problem, variant);
    const auto E = static_cast<double>(problem.E);
    const auto red = static_cast<double>(product.red);
    const auto out = static_cast<double>(product.out);
    const auto rank = product.rank > 0 ? static_cast<double>(padded_rank(problem)) : 0.0;
    const double busy = E * (1 - std::exp(-rows / E));  // experts with rows, whose weights are read
    families::ProductSize size{};
    size.E = problem.E;
    size.out = product.out;
    size.depth = red + rank;
    size.rows_per_expert = rows / E;
    size.bytes = 2 * (busy * (red + rank) * out + rows_in(problem, variant, product.rows) * red +
                      rows_in(problem, variant, product.out_rows) * out + rows * rank);
    size.reduction_contiguous = !product.weight_out_contiguous;
    return size;
}

void append(tune::SearchSpace& space, tune::SearchSpace more) {
    space.insert(space.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

families::ProductKernel rank_product(const Problem& problem, Role role) {
    return role == Role::xa ? families::xa_product(problem) : families::yb_product(problem);
}

tune::SearchSpace product_space(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    const bool forward = variant.operation == Operation::forward;
    const families::ProductKernel product =
        forward ? families::forward_product(problem) : families::dx_product(problem, variant);
    const families::ProductSize size = size_of_product(problem, variant, product);
    // A candidate that does not make its rank rows has those of another kernel made before it.
    double rank_seconds = 0;
    if (product.rank > 0) {
        const tune::SearchSpace ranks = search_space(problem, variant, forward ? Role::xa : Role::yb, facts);
        if (const auto best = tune::heuristic_choice(ranks)) rank_seconds = ranks[*best].predicted_seconds;
    }
    tune::SearchSpace space = families::product_mma_candidates(size, facts);
    tune::SearchSpace wgmma = families::wgmma_candidates(problem, product, size, facts);
    if (families::named_instructions() == "wgmma" && tune::heuristic_choice(wgmma)) {
        for (tune::Candidate& candidate : space) candidate.refusal = "SMLORA_INSTRUCTIONS is wgmma";
    }
    append(space, std::move(wgmma));
    for (tune::Candidate& candidate : space) {
        if (!families::makes_rank_rows(candidate.configuration)) candidate.predicted_seconds += rank_seconds;
    }
    return space;
}

tune::SearchSpace gradients_space(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    const double rows = routed_rows(problem, variant);
    const double gradient =
        static_cast<double>(problem.E * problem.R) * static_cast<double>(size_of(problem.adapter_dtype));
    const double tokens = rows_in(problem, variant, RowOrder::token);
    double bytes = 0;
    bool by_span = false;
    for (const auto& [wanted, width, order] : {std::tuple{variant.wants_da, problem.K, problem.x_rows},
                                               std::tuple{variant.wants_db, problem.N, problem.y_rows}}) {
        if (!wanted) continue;
        bytes += 2 * (rows_in(problem, variant, order) * static_cast<double>(width) +
                      rows * static_cast<double>(padded_rank(problem))) +
                 gradient * static_cast<double>(width);
        by_span = by_span || families::read_by_span(problem, order, width, tokens, facts);
    }
    const families::GradientSize size{
        problem.E, problem.R, padded_rank(problem), problem.gates, rows / static_cast<double>(problem.E),
        bytes,     by_span};
    tune::SearchSpace space = families::gradient_bulk_candidates(size, facts);
    append(space, families::gradient_mma_candidates(size, facts));
    return space;
}

}  // namespace

std::vector<Role> chosen_roles(const Problem& problem, const Variant& variant) {
    if (!variant.tensor_cores) return {};
    switch (variant.operation) {
        case Operation::forward:
            return problem.R > 0 ? std::vector{Role::product, Role::xa} : std::vector{Role::product};
        case Operation::backward_input:
            return problem.R > 0 ? std::vector{Role::product, Role::yb} : std::vector{Role::product};
        case Operation::backward_lora: {
            std::vector<Role> roles{Role::gradients};
            if (variant.needs_xa) roles.push_back(Role::xa);
            if (variant.needs_yb) roles.push_back(Role::yb);
            return roles;
        }
        case Operation::route:
        case Operation::group:
        case Operation::combine:
        case Operation::combine_backward:
        case Operation::activation:
        case Operation::activation_backward:
            break;
    }
    return {};
}

bool is_needed(const Plan& plan, Role role) { return role == Role::product || plan.has(role); }

std::string slot_name(const Problem& problem, const Variant& variant, Role role) {
    switch (role) {
        case Role::xa:
            return "xa";
        case Role::yb:
            return "yb";
        case Role::gradients:
            return variant.wants_da && variant.wants_db ? "gradients" : variant.wants_da ? "dA" : "dB";
        default:
            break;
    }
    if (variant.operation == Operation::forward) return "forward";
    // Whether the gate is applied on the way out is the one thing in which the kernels of dX differ between variants.
    const bool gated = problem.gates && problem.x_rows != RowOrder::token;
    return gated && variant.wants_dgates ? "dx before gates" : "dx";
}

Problem plain_problem(const Problem& problem) {
    Problem plain = problem;
    plain.adapter_dtype = problem.dtype;
    plain.gate_dtype = DType::fp32;
    plain.index_dtype = DType::int32;
    return plain;
}

std::vector<Problem> related_problems(const Problem& problem, Role role) {
    std::vector<Problem> related{plain_problem(problem)};
    if (role == Role::product) return related;
    Problem other = related.front();
    other.weight_layout = other.weight_layout == WeightLayout::ekn ? WeightLayout::enk : WeightLayout::ekn;
    related.push_back(other);
    for (const Problem& same_bias : {related[0], related[1]}) {
        other = same_bias;
        other.bias = !other.bias;
        related.push_back(other);
    }
    return related;
}

tune::SearchSpace search_space(const Problem& problem, const Variant& variant, Role role,
                               const gpu::DeviceFacts& facts) {
    switch (role) {
        case Role::xa:
        case Role::yb:
            return families::product_mma_candidates(size_of_product(problem, variant, rank_product(problem, role)),
                                                    facts);
        case Role::gradients:
            return gradients_space(problem, variant, facts);
        default:
            return product_space(problem, variant, facts);
    }
}

tune::Configuration configuration_for(const Problem& problem, const Variant& variant, Role role,
                                      const gpu::DeviceFacts& facts, const Choices& choices) {
    const tune::SearchSpace space = search_space(problem, variant, role, facts);
    if (const auto& chosen = choices.of(role); chosen && tune::find_legal(space, *chosen) != nullptr) return *chosen;
    const auto best = tune::heuristic_choice(space);
    if (!best) {
        throw Error(ErrorCode::unsupported, "no kernel for " + slot_name(problem, variant, role) + " fits the GPU: " +
                                                (space.empty() ? facts.name : space.front().refusal));
    }
    return space[*best].configuration;
}

std::vector<std::string> families_of(const tune::SearchSpace& space) {
    std::set<std::string> families;
    for (const tune::Candidate& candidate : space) families.insert(candidate.configuration.family);
    return {families.begin(), families.end()};
}

}  // namespace smlora::plan
