// The gradients of an adapter, dA and dB, as a piece of work: what its families have in common, and its launch.
#pragma once

#include "args/lora_gradient.h"
#include "families/launcher.hpp"
#include "families/step.hpp"
#include "gpu/device.hpp"
#include "jit/kernel_spec.hpp"

#include <smlora/problem.hpp>

#include <array>
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
};

[[nodiscard]] GradientSize gradient_size(const GradientWork& work);

/// How a family cuts the work of both gradients into items (expert, chunk of its rows, span of columns, rank tile),
/// which the blocks of a persistent grid take: see lora_gradient_items.cuh.
struct SpanCut {
    std::int64_t columns = 0;  ///< of a span at most
    std::int64_t unit = 0;     ///< of its columns
    std::int64_t rank_tiles = 1;
    int blocks = 1;  ///< that a multiprocessor holds
};

/// What the time of gradients that are cut so depends on.
struct SpanSize {
    struct Side {
        double spans = 0;    ///< rank tiles included
        double columns = 0;  ///< of each
    };

    std::array<Side, 2> sides;
    double chunks = 0;       ///< of all experts, at least one of each
    double busy_chunks = 0;  ///< that have rows
    double rows = 0;
    double last_to_mean = 1;  ///< see roofline.hpp, of blocks and items
    double bytes = 0;         ///< moved from and to memory

    /// Of the chunks that have rows.
    [[nodiscard]] double steps(int step_rows) const;
};

[[nodiscard]] SpanSize span_size(const GradientWork& work, const SpanCut& cut, const gpu::DeviceFacts& facts);

/// Of a launch whose blocks are busy for `work_seconds` and move `bytes`, with the launch of the kernel that adds up
/// partial sums.
[[nodiscard]] double predicted_gradient_seconds(double work_seconds, double bytes, const gpu::DeviceFacts& facts);

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
