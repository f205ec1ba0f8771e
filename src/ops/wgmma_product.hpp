// The grouped product on Hopper's tensor cores as a step of a plan.
#pragma once

#include "args/grouped_product.h"
#include "ops/cuda_call.hpp"
#include "ops/product_step.hpp"
#include "ops/tiles.hpp"

#include <cstdint>

namespace smlora::ops {

/// Which column tiles a kernel takes, and where its rank rows come from.
enum class WgmmaPart : std::uint8_t {
    whole,  ///< all; rank rows are read
    first,  ///< the first; rank rows are made and written
    rest,   ///< all but the first; rank rows are read
};

inline constexpr const char* product_wgmma_family = "grouped_product_wgmma";

/// The blockings of the family grouped_product_wgmma, legal or not: they need sm_90a, more than one step of the
/// reduction, and SMLORA_INSTRUCTIONS to be wgmma (without that variable it is mma).
[[nodiscard]] tune::SearchSpace wgmma_candidates(const Problem& problem, const ProductKernel& product,
                                                 const ProductSize& size, const gpu::DeviceFacts& facts);

/// Whether a product makes its rank rows on the way, rather than reading what another kernel made. For configurations
/// of every family.
[[nodiscard]] bool makes_rank_rows(const tune::Configuration& configuration);

/// Whether there are columns beside the first tile.
[[nodiscard]] bool wgmma_has_rest(const ProductKernel& product);

[[nodiscard]] Step wgmma_step(const Problem& problem, const ProductKernel& product, WgmmaPart part,
                              const tune::Configuration& configuration);

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
