// Plain reference of gather_rows: a thread takes one element at a time.
//
// Compile-time (struct C): E (FLAT = 0), WIDTH, ROWS, TOP_K, FLAT, HAS_GATES; types Element, Gate, Index.
#pragma once

#include "args/gather_rows.h"
#include "expert_of.cuh"
#include "rows.cuh"
#include "types.cuh"

namespace smlora::gather_rows_reference {

using Args = GatherRowsArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using From = Rows<const Element, C::ROWS, C::TOP_K>;
    const From rows{static_cast<const Element*>(args.rows), args.rows_stride};
    const auto* const scattered_idxs = static_cast<const typename C::Index*>(args.scattered_idxs);
    const int64 elements = static_cast<int64>(args.M) * C::WIDTH;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < elements;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int position = static_cast<int>(item / C::WIDTH);
        const int column = static_cast<int>(item % C::WIDTH);
        int flat = position;
        int kept = args.M;
        if constexpr (!C::FLAT) {
            flat = static_cast<int>(scattered_idxs[position]);
            kept = kept_rows<C::E>(static_cast<const typename C::Index*>(args.expert_offsets));
        }
        float value = 0.0F;
        if (position < kept) {
            value = From::value(rows.address(From::index(position, flat))[column], flat, column);
            if constexpr (C::HAS_GATES) value *= to_float(static_cast<const typename C::Gate*>(args.gates)[flat]);
        }
        static_cast<Element*>(args.out)[position * args.out_stride + column] = from_float<Element>(value);
    }
}

}  // namespace smlora::gather_rows_reference
