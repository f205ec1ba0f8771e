// Adds up the partial sums that lora_gradient_mma leaves for experts with several chunks of rows, in the order of the
// chunks. Grid: blocks of 256 threads over (expert, piece of RANK x WIDE) in y and x; experts with one chunk do
// nothing.
//
// Compile-time (struct C): E, WIDE, RANK; types Output, Index.
#pragma once

#include "args/lora_gradient.h"
#include "tile_list.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_reduce {

using Args = LoraGradientArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    const auto* const offsets = static_cast<const typename C::Index*>(args.expert_offsets);
    const int expert = static_cast<int>(blockIdx.y);
    auto chunks_of = [&](int e) {
        const int rows = static_cast<int>(offsets[e]) - first_row(offsets, e);
        return rows > args.chunk_rows ? ceil_div(rows, args.chunk_rows) : 0;
    };
    const int chunks = chunks_of(expert);
    if (chunks == 0) return;

    int64 slot = 0;
    for (int e = 0; e < expert; ++e) slot += chunks_of(e);
    const auto* const partials = static_cast<const float*>(args.partials) + slot * C::RANK * C::WIDE;
    constexpr int64 size = static_cast<int64>(C::RANK) * C::WIDE;
    for (int64 i = blockIdx.x * 256LL + threadIdx.x; i < size; i += gridDim.x * 256LL) {
        float sum = 0.0F;
        for (int chunk = 0; chunk < chunks; ++chunk) sum += partials[chunk * size + i];
        static_cast<typename C::Output*>(
            args.out)[expert * args.out_expert_stride + i % C::WIDE * args.out_wide_stride +
                      i / C::WIDE * args.out_rank_stride] = from_float<typename C::Output>(sum);
    }
}

}  // namespace smlora::lora_gradient_reduce
