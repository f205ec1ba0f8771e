// The grouped product on Hopper's tensor cores as a step of a plan.
#pragma once

#include "args/grouped_product.h"
#include "ops/cuda_call.hpp"
#include "ops/product_step.hpp"

#include <cstdint>

namespace smlora::ops {

/// Which column tiles a kernel takes, and where its rank rows come from.
enum class WgmmaPart : std::uint8_t {
    whole,  ///< all; rank rows are read
    first,  ///< the first; rank rows are made and written
    rest,   ///< all but the first; rank rows are read
};

/// Whether the product may run on wgmma: on sm_90a, with more than one step of the reduction, if SMLORA_INSTRUCTIONS is
/// wgmma (without that variable it is mma).
[[nodiscard]] bool wgmma_serves(const ProductKernel& product, const Variant& variant, const gpu::DeviceFacts& facts);

/// Whether a product of this rank makes its rank rows on the way, rather than reading what another kernel made.
[[nodiscard]] bool wgmma_makes_rank_rows(const ProductKernel& product);

/// Whether there are columns beside the first tile.
[[nodiscard]] bool wgmma_has_rest(const ProductKernel& product);

[[nodiscard]] Step wgmma_step(const Problem& problem, const ProductKernel& product, WgmmaPart part);

/// The matrix that makes the rank rows, as AdapterMatrix, and where they go.
struct RankRows {
    const void* matrix = nullptr;
    std::int64_t expert_stride = 0, row_stride = 0;
    float scale = 1.0F;
    void* rows = nullptr;
};

void launch_wgmma(CudaCall& call, const Plan& plan, const Step& step, const GroupedProductArgs& product,
                  const RankRows& rank_rows, gpu::Begin begin);

}  // namespace smlora::ops
