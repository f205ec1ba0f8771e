#include "plan/step_kernels.hpp"

#include "families/packed.hpp"
#include "tuning/bucket.hpp"

#include <algorithm>
#include <utility>

namespace smlora::plan {
namespace {

class KernelSet {
 public:
    KernelSet(const Problem& problem, const gpu::DeviceFacts& facts, const KnownChoices& choices)
        : problem_(problem), facts_(facts), choices_(choices) {}

    void add(const Request& request) {
        const Choices choices = choices_ ? choices_(request) : Choices{};
        for (auto& step : make_plan(problem_, request, facts_, choices).steps) {
            if (step && std::find(specs_.begin(), specs_.end(), step->spec) == specs_.end()) {
                specs_.push_back(std::move(step->spec));
            }
        }
    }

    /// Adapters are stored in three ways: as the kernels read them; with another type, rank contiguous or not (the
    /// layout of scattermoe's own adapters and PEFT's A); and with the expert fastest (PEFT's B). Each may be what a
    /// job brings.
    template <class Projection>
    void add_with_packings(Projection request) {
        if (problem_.R == 0) return add(request);
        if (problem_.adapter_dtype == problem_.dtype && problem_.R % 8 == 0) add(request);
        request.packing = {families::aligned_pack_a(problem_), families::aligned_pack_b(problem_)};
        add(request);
        request.packing.b = families::PackWork{.fastest = families::Fastest::expert, .vectors = true};
        add(request);
    }

    [[nodiscard]] std::vector<jit::KernelSpec> take() { return std::move(specs_); }

 private:
    const Problem& problem_;
    const gpu::DeviceFacts& facts_;
    const KnownChoices& choices_;
    std::vector<jit::KernelSpec> specs_;
};

/// Rows of `width` numbers that are aligned as far as their length allows it.
bool rows_are_whole_vectors(const Problem& problem, std::int64_t width) {
    return width * static_cast<std::int64_t>(size_of(problem.dtype)) % 16 == 0;
}

bool on_tensor_cores(const Problem& problem) {
    return rows_are_whole_vectors(problem, problem.K) && rows_are_whole_vectors(problem, problem.N) &&
           size_of(problem.dtype) == 2;
}

Forward aligned_forward(const Problem& problem, std::int64_t T, const std::optional<Unpack>& unpack) {
    return {.bucket = tuning::bucket_of(T),
            .tensor_cores = on_tensor_cores(problem),
            .vector_rows = rows_are_whole_vectors(problem, problem.N),
            .packing = {},
            .unpack = unpack,
            .packed = on_tensor_cores(problem) && families::can_multiply_codes(problem)};
}

BackwardInput aligned_backward_input(const Problem& problem, std::int64_t T, BackwardInput::Gates gates,
                                     const std::optional<Unpack>& unpack) {
    return {.bucket = tuning::bucket_of(T),
            .tensor_cores = on_tensor_cores(problem),
            .vector_rows = rows_are_whole_vectors(problem, problem.K),
            .vector_bias = rows_are_whole_vectors(problem, problem.N) && problem.bias,
            .gates = gates,
            .packing = {},
            .unpack = unpack,
            .packed = on_tensor_cores(problem) && families::can_multiply_codes(problem)};
}

BackwardLora aligned_backward_lora(const Problem& problem, std::int64_t T) {
    return {.bucket = tuning::bucket_of(T),
            .tensor_cores = on_tensor_cores(problem),
            .wants_da = true,
            .wants_db = true,
            .packing = {}};
}

/// What arranges scales when a weight is loaded, for each way in which checkpoints have them.
std::vector<ArrangeScales> arranging(const Problem& problem) {
    const families::ArrangeWork usual = families::aligned_arrange_work(problem);
    std::vector<ArrangeScales> found{{usual}};
    const auto add = [&](DType scales, std::int64_t outer_block) {
        found.push_back({usual});
        found.back().work.format.scales = scales;
        found.back().work.format.outer_block = outer_block;
    };
    const Encoding encoding = problem.weights.encoding;
    if (encoding == Encoding::nf4 || encoding == Encoding::fp4) add(DType::uint8, 256);  // bitsandbytes has no other
    if (encoding == Encoding::fp8) {
        add(DType::bf16, 0);
        add(DType::e8m0, 0);
    }
    return found;
}

}  // namespace

std::optional<Unpack> aligned_unpack(const Problem& problem, std::uint64_t limit) {
    if (problem.weights.encoding == Encoding::plain) return std::nullopt;
    return unpack_request(problem, families::aligned_unpack_work(problem), limit);
}

std::vector<Request> step_requests(const Problem& problem, std::int64_t T, std::uint64_t unpack_limit) {
    const std::optional<Unpack> unpack = aligned_unpack(problem, unpack_limit);
    using Gates = BackwardInput::Gates;
    const Gates gates = problem.gates ? Gates::differentiated : Gates::applied;
    std::vector<Request> requests{aligned_forward(problem, T, unpack),
                                  aligned_backward_input(problem, T, gates, unpack)};
    if (problem.R > 0) requests.emplace_back(aligned_backward_lora(problem, T));
    return requests;
}

std::vector<jit::KernelSpec> step_kernels(const Problem& problem, std::int64_t T, const gpu::DeviceFacts& facts,
                                          const KnownChoices& choices, std::uint64_t unpack_limit) {
    KernelSet kernels(problem, facts, choices);
    const std::optional<Unpack> unpack = aligned_unpack(problem, unpack_limit);
    const bool vectors = rows_are_whole_vectors(problem, problem.N);
    for (const DType input : {DType::int32, DType::int64}) kernels.add(Route{input});
    if (problem.x_rows != RowOrder::grouped)
        kernels.add(Group{.rows = {problem.K, rows_are_whole_vectors(problem, problem.K)}});
    if (problem.y_rows == RowOrder::scattered) {
        kernels.add(Combine{.rows = {problem.N, vectors}, .gated = true});
        kernels.add(
            CombineBackward{.rows = {problem.N, vectors}, .gated = true, .wants_dy = true, .wants_dgates = true});
    }
    kernels.add_with_packings(aligned_forward(problem, T, unpack));
    using Gates = BackwardInput::Gates;
    kernels.add_with_packings(aligned_backward_input(problem, T, Gates::applied, unpack));
    // Those of dx before the gates are among these.
    if (problem.gates) kernels.add_with_packings(aligned_backward_input(problem, T, Gates::differentiated, unpack));
    if (problem.R > 0) {
        BackwardLora lora = aligned_backward_lora(problem, T);
        kernels.add(lora);
        lora.needs_xa = lora.needs_yb = true;
        kernels.add_with_packings(lora);
    }
    if (problem.weights.arranged) {
        for (const ArrangeScales& request : arranging(problem)) kernels.add(request);
    }
    return kernels.take();
}

std::vector<jit::KernelSpec> activation_kernels(const PrewarmActivation& activation,
                                                const std::vector<Problem>& problems, const gpu::DeviceFacts& facts) {
    using Direction = families::ActivationWork::Direction;
    const KnownChoices heuristic;
    const bool vectors = activation.width * static_cast<std::int64_t>(size_of(activation.dtype)) % 16 == 0;
    const GatedActivation forward{
        .rows = {activation.width, vectors},
        .work = {.direction = Direction::forward, .activation = activation.activation, .layout = activation.layout}};
    std::vector<jit::KernelSpec> specs;
    const auto add = [&](const Problem& problem, const GatedActivation& request) {
        KernelSet kernels(problem, facts, heuristic);
        kernels.add(request);
        for (jit::KernelSpec& spec : kernels.take()) specs.push_back(std::move(spec));
    };
    const auto add_backward = [&](const Problem& problem, bool gates) {
        GatedActivation backward = forward;
        backward.work.direction = Direction::backward;
        backward.work.gates = gates;
        for (const bool writes_a : {false, true}) {
            backward.work.writes_a = writes_a;
            add(problem, backward);
        }
    };
    Problem any;
    any.dtype = activation.dtype;
    add(any, forward);
    add_backward(any, false);
    for (const Problem& problem : problems) {
        const bool takes = problem.gates && !problem.bias && problem.x_rows == RowOrder::grouped &&
                           problem.K == activation.width && problem.dtype == activation.dtype;
        if (takes) add_backward(problem, true);
    }
    return specs;
}

}  // namespace smlora::plan
