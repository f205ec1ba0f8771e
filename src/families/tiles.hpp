// Tiles of the kernels on mma.sync: the candidates, what is legal of them, and a cost model.
#pragma once

#include "args/grouped_product_mma.h"
#include "args/lora_gradient_bulk.h"
#include "args/lora_gradient_mma.h"
#include "gpu/device.hpp"
#include "tune/candidate.hpp"

#include <smlora/problem.hpp>

#include <cstdint>

namespace smlora::families {

/// Blocking of grouped_product_mma.
struct ProductTile {
    int m, n, k;  ///< the block's tile: rows, outputs, depth of a pipeline stage
    int warps_m, warps_n;
    int stages;
    int min_blocks;  ///< resident blocks a multiprocessor that registers are allotted for

    [[nodiscard]] grouped_product_mma::Blocking blocking() const { return {m, n, k, warps_m, warps_n, stages}; }
    [[nodiscard]] unsigned threads() const;
    /// Dynamic shared memory.
    [[nodiscard]] unsigned shared_bytes(std::int64_t E) const;
};

/// What the time of a grouped product depends on.
struct ProductSize {
    std::int64_t E, out;
    double depth;               ///< of the reduction, the adapter's included
    double rows_per_expert;     ///< the mean, M / E
    double bytes;               ///< read and written once
    bool reduction_contiguous;  ///< of the weight
};

inline constexpr const char* product_mma_family = "grouped_product_mma";

/// Every tile of the family grouped_product_mma, legal or not.
[[nodiscard]] tune::SearchSpace product_mma_candidates(const ProductSize& size, const gpu::DeviceFacts& facts);
[[nodiscard]] ProductTile product_tile(const tune::Configuration& configuration);

/// Blocking of lora_gradient_mma.
struct GradientTile {
    int c, r, k;  ///< columns of the wide operand, ranks, rows of a pipeline stage
    int warps;
    int stages;
    int min_blocks;

    [[nodiscard]] lora_gradient_mma::Blocking blocking() const { return {c, r, k, warps, stages}; }
    [[nodiscard]] unsigned threads() const;
    /// Dynamic shared memory.
    [[nodiscard]] unsigned shared_bytes(std::int64_t E) const;
};

/// Blocking of lora_gradient_bulk.
struct GradientBulkTile {
    int c, r;  ///< columns and ranks that a warp sums at once
    int warps;
    int stages;  ///< of 16 rows

    [[nodiscard]] lora_gradient_bulk::Blocking blocking() const { return {c, r, warps, stages}; }
    [[nodiscard]] unsigned threads() const;
    /// Columns of an item.
    [[nodiscard]] std::int64_t span() const;
    /// Dynamic shared memory. `rank`: padded.
    [[nodiscard]] unsigned shared_bytes(std::int64_t E, std::int64_t rank, bool gates) const;
};

/// Whether a wide operand of the gradients, whose rows are read for each of their token's experts, is too large to stay
/// in L2 as a whole, so that only a span of its columns may.
[[nodiscard]] bool read_by_span(const Problem& problem, RowOrder rows, std::int64_t width, double tokens,
                                const gpu::DeviceFacts& facts);

/// What the time of the adapter's gradients depends on.
struct GradientSize {
    std::int64_t E, R, padded_rank;
    bool gates;
    double rows_per_expert;  ///< the mean, M / E
    double bytes;            ///< read and written once
    bool by_span;            ///< see read_by_span, of either operand
};

inline constexpr const char* gradient_mma_family = "lora_gradient_mma";

/// Every tile of the family lora_gradient_mma, legal or not.
[[nodiscard]] tune::SearchSpace gradient_mma_candidates(const GradientSize& size, const gpu::DeviceFacts& facts);
[[nodiscard]] GradientTile gradient_tile(const tune::Configuration& configuration);

inline constexpr const char* gradient_bulk_family = "lora_gradient_bulk";

/// Every blocking of the family lora_gradient_bulk, legal or not: it needs sm_90 or later.
[[nodiscard]] tune::SearchSpace gradient_bulk_candidates(const GradientSize& size, const gpu::DeviceFacts& facts);
[[nodiscard]] GradientBulkTile gradient_bulk_tile(const tune::Configuration& configuration);

}  // namespace smlora::families
