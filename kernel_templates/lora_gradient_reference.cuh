// Plain reference of the adapter's gradients: a thread takes one element (e, c, r) at a time and sums over the expert's
// rows in fp32, in sorted order. 256 threads, any grid; `partials`, `by_span` and `uncut_rows` are not used.
//
// Compile-time (struct C): E, WIDE, RANK, RANK_STRIDE, ROWS, TOP_K, HAS_GATES; types Element (of wide and rank_rows),
// Output, Gate, Index.
#pragma once

#include "args/lora_gradient.h"
#include "groups.cuh"
#include "rows.cuh"
#include "types.cuh"

namespace smlora::lora_gradient_reference {

using Args = LoraGradientArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using Wide = Rows<const Element, C::ROWS, C::TOP_K>;
    const Wide wide{static_cast<const Element*>(args.wide), args.wide_stride};
    const auto* const rank_rows = static_cast<const Element*>(args.rank_rows);
    const auto* const scattered_idxs = static_cast<const typename C::Index*>(args.scattered_idxs);
    const Groups<C, false> groups{static_cast<const typename C::Index*>(args.expert_offsets), args.M};
    const int64 elements = static_cast<int64>(C::E) * C::WIDE * C::RANK;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < elements;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int64 column = item % C::WIDE;
        const int64 rank = item / C::WIDE % C::RANK;
        const int group = static_cast<int>(item / C::WIDE / C::RANK);
        const int begin = groups.first_row(group);
        const int end = groups.end_row(group);
        float sum = 0.0F;
        for (int position = begin; position < end; ++position) {
            const int flat = static_cast<int>(scattered_idxs[position]);
            float coefficient = to_float(rank_rows[static_cast<int64>(position) * C::RANK_STRIDE + rank]);
            // The kernels that are compared with this one round it, too: where terms of both signs make a small sum,
            // the sum's own size does not bound the difference.
            if constexpr (C::HAS_GATES) {
                coefficient *= to_float(static_cast<const typename C::Gate*>(args.gates)[flat]);
                coefficient = to_float(from_float<Element>(coefficient));
            }
            sum = fmaf(coefficient, Wide::value(wide.address(Wide::index(position, flat))[column], flat, column), sum);
        }
        static_cast<typename C::Output*>(args.out)[groups.adapter_of(group) * args.out_expert_stride +
                                                   column * args.out_wide_stride + rank * args.out_rank_stride] =
            from_float<typename C::Output>(sum);
    }
}

}  // namespace smlora::lora_gradient_reference
