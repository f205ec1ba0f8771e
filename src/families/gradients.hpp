// The gradients of an adapter, dA and dB, as a piece of work: what its families have in common, and its launch.
#pragma once

#include "args/lora_gradient.h"
#include "families/launcher.hpp"
#include "families/step.hpp"
#include "gpu/device.hpp"
#include "jit/kernel_spec.hpp"

#include <smlora/problem.hpp>

#include <cstdint>
#include <vector>

namespace smlora::families {

/// What a family plans the gradients from. One that is not wanted has no columns.
struct GradientWork {
    Problem problem;
    bool wants_da = false;
    bool wants_db = false;
    double tokens = 1;  ///< of a call, roughly; for cost models alone

    [[nodiscard]] std::int64_t wide_a() const { return wants_da ? problem.K : 0; }
    [[nodiscard]] std::int64_t wide_b() const { return wants_db ? problem.N : 0; }
};

/// What the time of the gradients depends on.
struct GradientSize {
    std::int64_t E = 0, R = 0, padded_rank = 0;
    bool gates = false;
    double rows_per_expert = 0;  ///< the mean, M / E
    double bytes = 0;            ///< read and written once
    bool by_span = false;        ///< see read_by_span, of either operand
};

[[nodiscard]] GradientSize gradient_size(const GradientWork& work, const gpu::DeviceFacts& facts);

/// Bytes that are moved with rank tiles of `ranks`: each streams the wide operands once more. Ranks of a tile beyond R
/// cost arithmetic only, for which a little is added.
[[nodiscard]] double bytes_moved(const GradientSize& size, int ranks);

/// Constants that the templates of both gradients in one launch have in common.
[[nodiscard]] std::vector<jit::Constant> gradient_pair_constants(const GradientWork& work);

/// Tiles beside each other, each of `columns` columns and `ranks` ranks of either gradient.
[[nodiscard]] int gradient_tiles(const GradientWork& work, std::int64_t columns, std::int64_t ranks);

/// Adds up the partial sums that the step of a family leaves.
[[nodiscard]] Step gradients_reduce_step(const GradientWork& work);

/// Bytes of the partial sums of one gradient of `width` columns, and of what else its launch needs.
[[nodiscard]] std::int64_t partials_bytes(const Problem& problem, std::int64_t width, std::int64_t M);

/// Either `both` and `reduce`, or a kernel for each gradient that is wanted.
struct GradientSteps {
    const Step* both = nullptr;
    const Step* reduce = nullptr;
    const Step* a = nullptr;
    const Step* b = nullptr;
};

/// Both gradients; one that is not wanted has no output. Fills in what follows from how rows are cut into chunks.
void launch_gradients(const Launcher& launcher, const GradientSteps& steps, const Problem& problem,
                      LoraGradientPair pair);

}  // namespace smlora::families
