// Tile sizes of the tensor-core kernels: what is legal, and a cost model that chooses among it.
#pragma once

#include "gpu/device.hpp"

#include <cstdint>

namespace smlora::ops {

/// Blocking of grouped_product_mma.
struct ProductTile {
    int m, n, k;  ///< the block's tile: rows, outputs, depth of a pipeline stage
    int warps_m, warps_n;
    int stages;
    int min_blocks;  ///< resident blocks a multiprocessor that registers are allotted for

    [[nodiscard]] unsigned threads() const { return static_cast<unsigned>(warps_m * warps_n * 32); }
    /// Dynamic shared memory; mirrors the table at the top of grouped_product_mma.cuh.
    [[nodiscard]] unsigned shared_bytes(std::int64_t E) const;
};

/// What the choice depends on.
struct ProductSize {
    std::int64_t E, out;
    double rows_per_expert;     ///< the mean, M / E
    bool reduction_contiguous;  ///< of the weight
};

[[nodiscard]] ProductTile choose_product_tile(const ProductSize& size, const gpu::DeviceFacts& facts);

/// Blocking of lora_gradient_mma.
struct GradientTile {
    int c, r, k;  ///< columns of the wide operand, ranks, rows of a pipeline stage
    int warps;
    int stages;
    int min_blocks;

    [[nodiscard]] unsigned threads() const { return static_cast<unsigned>(warps * 32); }
    [[nodiscard]] unsigned shared_bytes(std::int64_t E) const;
};

[[nodiscard]] GradientTile choose_gradient_tile(std::int64_t E, std::int64_t R, const gpu::DeviceFacts& facts);

}  // namespace smlora::ops
