#include "plan/search_space.hpp"

#include "families/family.hpp"
#include "plan/packed.hpp"
#include "plan/step_kernels.hpp"
#include "plan/work.hpp"
#include "tuning/bucket.hpp"

#include <smlora/error.hpp>

#include <algorithm>
#include <set>

namespace smlora::plan {
namespace {

tuning::SearchSpace product_space(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts) {
    tuning::SearchSpace space = families::product_candidates(product_work(problem, request, Role::product), facts);
    if (problem.R == 0) return space;
    // A candidate that does not make its rank rows has those of another kernel made before it.
    families::ProductWork before = product_work(problem, request, *rank_role(request));
    before.followed = true;
    const tuning::SearchSpace ranks = families::product_candidates(before, facts);
    const auto best = tuning::heuristic_choice(ranks);
    if (!best) return space;
    for (tuning::Candidate& candidate : space) {
        if (!families::makes_rank_rows(candidate.configuration)) {
            candidate.predicted_seconds += ranks[*best].predicted_seconds;
        }
    }
    return space;
}

}  // namespace

std::vector<Role> chosen_roles(const Problem& problem, const Request& request) {
    if (!on_tensor_cores(request)) return {};
    if (const auto* lora = std::get_if<BackwardLora>(&request)) {
        std::vector<Role> roles{Role::gradients};
        if (lora->needs_xa) roles.push_back(Role::xa);
        if (lora->needs_yb) roles.push_back(Role::yb);
        return roles;
    }
    std::vector<Role> roles;
    if (packed(request)) roles.push_back(Role::decoding);
    roles.push_back(Role::product);
    if (problem.R > 0) roles.push_back(*rank_role(request));
    return roles;
}

bool is_needed(const Problem& problem, const Request& request, Role role, const gpu::DeviceFacts& facts,
               const Choices& choices) {
    if (role != Role::product && rank_role(request) != role) return true;
    const Request taken = with_the_faster_product(problem, request, facts, choices);
    if (role == Role::product) return !packed(request) || !packed(taken);
    return !families::makes_rank_rows(configuration_for(problem, taken, Role::product, facts, choices));
}

RecordedAs recorded_as(const Problem& problem, const Request& request, Role role) {
    if (role == Role::decoding) return {problem, request};
    return {with_plain_weights(problem), with_plain_weights(request)};
}

std::string slot_name(const Problem& problem, const Request& request, Role role) {
    if (role == Role::xa) return "xa";
    if (role == Role::yb) return "yb";
    if (const auto* lora = std::get_if<BackwardLora>(&request)) {
        return lora->wants_da && lora->wants_db ? "gradients" : lora->wants_da ? "dA" : "dB";
    }
    const std::string suffix = role == Role::decoding ? " decoding" : "";
    const auto* const dx = std::get_if<BackwardInput>(&request);
    if (dx == nullptr) return "forward" + suffix;
    // Whether the gate is applied on the way out is the one thing in which the kernels of dX differ between requests.
    const bool gated = problem.gates && problem.x_rows != RowOrder::token;
    return (gated && dx->gates != BackwardInput::Gates::applied ? "dx before gates" : "dx") + suffix;
}

std::optional<NamedWork> work_called(const std::string& slot, const Problem& problem, std::uint8_t bucket) {
    std::vector<Request> requests;
    for (const Request& request : step_requests(problem, tuning::tokens_of(bucket))) {
        requests.push_back(request);
        // What a step does not ask for, but a call may.
        if (auto dx = std::get_if<BackwardInput>(&request)) {
            BackwardInput other = *dx;
            using Gates = BackwardInput::Gates;
            other.gates = dx->gates == Gates::applied ? Gates::differentiated : Gates::applied;
            requests.emplace_back(other);
        } else if (auto lora = std::get_if<BackwardLora>(&request)) {
            BackwardLora one = *lora;
            one.wants_db = false;
            requests.emplace_back(one);
            std::swap(one.wants_da, one.wants_db);
            requests.emplace_back(one);
        }
    }
    for (const Request& request : requests) {
        for (const Role role : chosen_roles(problem, request)) {
            if (slot_name(problem, request, role) == slot) return NamedWork{request, role};
        }
    }
    return std::nullopt;
}

Problem plain_problem(const Problem& problem) {
    Problem plain = problem;
    plain.adapter_dtype = problem.dtype;
    plain.gate_dtype = DType::fp32;
    plain.index_dtype = DType::int32;
    plain.weights = {};
    return plain;
}

std::vector<Problem> related_problems(const Problem& problem, Role role) {
    std::vector<Problem> related{plain_problem(problem)};
    if (role == Role::decoding) related.front().weights = problem.weights;
    if (role == Role::product || role == Role::decoding) return related;
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

tuning::SearchSpace search_space(const Problem& problem, const Request& request, Role role,
                                 const gpu::DeviceFacts& facts) {
    switch (role) {
        case Role::xa:
        case Role::yb:
            return families::product_candidates(product_work(problem, request, role), facts);
        case Role::gradients:
            return families::gradient_candidates(gradient_work(problem, std::get<BackwardLora>(request)), facts);
        case Role::decoding:
            return decoding_space(problem, request, facts);
        default:
            return product_space(problem, request, facts);
    }
}

tuning::Configuration configuration_for(const Problem& problem, const Request& request, Role role,
                                        const gpu::DeviceFacts& facts, const Choices& choices) {
    const tuning::SearchSpace space = search_space(problem, request, role, facts);
    const Role chooser = role == Role::product && packed(request) ? Role::decoding : role;
    const auto& chosen = choices.of(chooser);
    if (chosen && tuning::find_legal(space, *chosen) != nullptr) return *chosen;
    const auto best = tuning::heuristic_choice(space);
    if (!best) {
        throw Error(ErrorCode::unsupported, "no kernel for " + slot_name(problem, request, role) + " fits the GPU: " +
                                                (space.empty() ? facts.name : space.front().refusal));
    }
    return space[*best].configuration;
}

std::vector<std::string> families_of(const tuning::SearchSpace& space) {
    std::set<std::string> families;
    for (const tuning::Candidate& candidate : space) families.insert(candidate.configuration.family);
    return {families.begin(), families.end()};
}

}  // namespace smlora::plan
