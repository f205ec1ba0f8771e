// The grouped product on Hopper's tensor cores as a step of a plan.
#pragma once

#include "args/grouped_product.h"
#include "engine/cuda_call.hpp"
#include "families/product_step.hpp"
#include "families/wgmma_blocking.hpp"

#include <cstdint>

namespace smlora::families {

[[nodiscard]] plan::Step wgmma_step(const Problem& problem, const ProductKernel& product,
                                    const tune::Configuration& configuration);

/// The matrix that makes the rank rows, as AdapterMatrix, and where they go.
struct RankRows {
    const void* matrix = nullptr;
    std::int64_t expert_stride = 0, row_stride = 0;
    float scale = 1.0F;
    void* rows = nullptr;
    void* progress = nullptr;  ///< scratch memory of wgmma_progress_bytes()
};

/// What the blocks of a product that makes its rank rows tell each other by, for M rows.
[[nodiscard]] std::int64_t wgmma_progress_bytes(std::int64_t E, std::int64_t M);

void launch_wgmma(engine::CudaCall& call, const plan::Plan& plan, const plan::Step& step,
                  const GroupedProductArgs& product, const RankRows& rank_rows, gpu::Begin begin);

}  // namespace smlora::families
