#include "plan/step_kernels.hpp"

#include "plan/plan.hpp"

#include <algorithm>

namespace smlora::plan {
namespace {

class KernelSet {
 public:
    KernelSet(const Problem& problem, const gpu::DeviceFacts& facts, const KnownChoices& choices)
        : problem_(problem), facts_(facts), choices_(choices) {}

    void add(const Variant& variant) {
        const Choices choices = choices_ ? choices_(variant) : Choices{};
        for (auto& step : make_plan(problem_, variant, facts_, choices).steps) {
            if (step && std::find(specs_.begin(), specs_.end(), step->spec) == specs_.end()) {
                specs_.push_back(std::move(step->spec));
            }
        }
    }
    [[nodiscard]] std::vector<jit::KernelSpec> take() { return std::move(specs_); }

 private:
    const Problem& problem_;
    const gpu::DeviceFacts& facts_;
    const KnownChoices& choices_;
    std::vector<jit::KernelSpec> specs_;
};

bool rows_are_whole_vectors(const Problem& problem) {
    const auto element = static_cast<std::int64_t>(size_of(problem.dtype));
    return problem.K * element % 16 == 0 && problem.N * element % 16 == 0;
}

/// Of tensors whose rows are aligned as far as their lengths allow it.
Variant aligned_variant(const Problem& problem, std::int64_t T) {
    const bool whole_vectors = rows_are_whole_vectors(problem);
    Variant variant;
    variant.bucket = tune::bucket_of(T);
    variant.vector_rows = whole_vectors;
    variant.vector_bias = whole_vectors && problem.bias;
    variant.tensor_cores = whole_vectors && size_of(problem.dtype) == 2;
    return variant;
}

/// Adapters are stored in three ways: as the kernels read them; with another type, rank contiguous or not (the seed's
/// layout and PEFT's A); and with the expert fastest (PEFT's B). Each may be what a job brings.
void add_packings(KernelSet& kernels, Variant variant, const Problem& problem) {
    if (problem.adapter_dtype == problem.dtype && problem.R % 8 == 0) kernels.add(variant);
    variant.pack_a = true;
    variant.pack_b = true;
    kernels.add(variant);
    variant.fastest_b = 2;
    kernels.add(variant);
}

}  // namespace

std::vector<Variant> step_variants(const Problem& problem, std::int64_t T) {
    Variant variant = aligned_variant(problem, T);
    std::vector<Variant> variants;
    variant.operation = Operation::forward;
    variants.push_back(variant);
    variant.operation = Operation::backward_input;
    variant.wants_dgates = problem.gates;
    variants.push_back(variant);
    if (problem.R > 0) {
        variant.operation = Operation::backward_lora;
        variant.wants_dgates = false;
        variant.wants_da = variant.wants_db = true;
        variants.push_back(variant);
    }
    return variants;
}

std::vector<jit::KernelSpec> step_kernels(const Problem& problem, std::int64_t T, const gpu::DeviceFacts& facts,
                                          const KnownChoices& choices) {
    KernelSet kernels(problem, facts, choices);
    const bool whole_vectors = rows_are_whole_vectors(problem);
    Variant variant = aligned_variant(problem, T);

    Variant route = {};
    route.operation = Operation::route;
    for (const DType input : {DType::int32, DType::int64}) {
        route.input_index = input;
        kernels.add(route);
    }

    Variant rows = {};
    rows.vector_rows = whole_vectors;
    if (problem.x_rows != RowOrder::grouped) {
        rows.operation = Operation::group;
        rows.width = problem.K;
        kernels.add(rows);
    }
    if (problem.y_rows == RowOrder::scattered) {
        rows.width = problem.N;
        rows.gated = true;
        rows.operation = Operation::combine;
        kernels.add(rows);
        rows.operation = Operation::combine_backward;
        rows.wants_dy = rows.wants_dgates = true;
        kernels.add(rows);
    }

    variant.operation = Operation::forward;
    problem.R > 0 ? add_packings(kernels, variant, problem) : kernels.add(variant);

    variant.operation = Operation::backward_input;
    for (const bool dgates : {false, true}) {
        if (dgates && !problem.gates) continue;
        variant.wants_dgates = dgates;
        problem.R > 0 ? add_packings(kernels, variant, problem) : kernels.add(variant);
    }
    variant.wants_dgates = false;

    if (problem.R > 0) {
        variant.operation = Operation::backward_lora;
        variant.wants_da = variant.wants_db = true;
        kernels.add(variant);
        variant.needs_xa = variant.needs_yb = true;
        add_packings(kernels, variant, problem);
    }
    return kernels.take();
}

std::vector<jit::KernelSpec> activation_kernels(const PrewarmActivation& activation, const gpu::DeviceFacts& facts) {
    Problem problem;
    problem.dtype = activation.dtype;
    const KnownChoices heuristic;
    KernelSet kernels(problem, facts, heuristic);
    Variant variant;
    variant.vector_rows = activation.width * static_cast<std::int64_t>(size_of(activation.dtype)) % 16 == 0;
    variant.width = activation.width;
    variant.activation = activation.activation;
    variant.gate_layout = activation.layout;
    variant.operation = Operation::activation;
    variant.wants_a = true;
    kernels.add(variant);
    variant.operation = Operation::activation_backward;
    for (const bool wants_a : {false, true}) {
        variant.wants_a = wants_a;
        kernels.add(variant);
    }
    return kernels.take();
}

}  // namespace smlora::plan
