// Plain reference of pack_adapter: a thread takes one packed element at a time.
//
// Compile-time (struct C): E, OUTER, INNER, OUTER_PAD, INNER_PAD; types Source, Element.
#pragma once

#include "args/pack_adapter.h"
#include "types.cuh"

namespace smlora::pack_adapter_reference {

using Args = PackAdapterArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    constexpr int64 matrix = static_cast<int64>(C::OUTER_PAD) * C::INNER_PAD;
    const auto* const source = static_cast<const typename C::Source*>(args.source);
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < C::E * matrix;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int64 expert = item / matrix;
        const int64 outer = item % matrix / C::INNER_PAD;
        const int64 inner = item % C::INNER_PAD;
        float value = 0.0F;
        if (outer < C::OUTER && inner < C::INNER) {
            value =
                to_float(source[expert * args.expert_stride + outer * args.outer_stride + inner * args.inner_stride]);
        }
        static_cast<typename C::Element*>(args.packed)[item] = from_float<typename C::Element>(value);
    }
}

}  // namespace smlora::pack_adapter_reference
