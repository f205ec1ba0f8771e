#include "ops/step_kernels.hpp"

#include "ops/plan.hpp"

#include <algorithm>

namespace smlora::ops {
namespace {

class KernelSet {
 public:
    KernelSet(const Problem& problem, const gpu::DeviceFacts& facts) : problem_(problem), facts_(facts) {}

    void add(const Variant& variant) {
        for (auto& step : make_plan(problem_, variant, facts_).steps) {
            if (step && std::find(specs_.begin(), specs_.end(), step->spec) == specs_.end()) {
                specs_.push_back(std::move(step->spec));
            }
        }
    }
    [[nodiscard]] std::vector<jit::KernelSpec> take() { return std::move(specs_); }

 private:
    const Problem& problem_;
    const gpu::DeviceFacts& facts_;
    std::vector<jit::KernelSpec> specs_;
};

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

std::vector<jit::KernelSpec> step_kernels(const Problem& problem, std::int64_t T, const gpu::DeviceFacts& facts) {
    KernelSet kernels(problem, facts);
    const bool whole_vectors = problem.K * static_cast<std::int64_t>(size_of(problem.dtype)) % 16 == 0 &&
                               problem.N * static_cast<std::int64_t>(size_of(problem.dtype)) % 16 == 0;
    Variant variant;
    variant.bucket = bucket_of(T);
    variant.vector_rows = whole_vectors;
    variant.vector_bias = whole_vectors && problem.bias;
    variant.tensor_cores = whole_vectors && size_of(problem.dtype) == 2;

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

}  // namespace smlora::ops
