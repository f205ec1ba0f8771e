// Plain reference of combine: a thread takes one element at a time.
//
// Compile-time (struct C): TOP_K, WIDTH, HAS_GATES; types Element, Gate.
#pragma once

#include "args/combine.h"
#include "types.cuh"

namespace smlora::combine_reference {

using Args = CombineKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    const int64 elements = static_cast<int64>(args.T) * C::WIDTH;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < elements;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int64 token = item / C::WIDTH;
        const int64 column = item % C::WIDTH;
        float sum = 0.0F;
        for (int choice = 0; choice < C::TOP_K; ++choice) {
            const int64 flat = token * C::TOP_K + choice;
            const float value = to_float(static_cast<const Element*>(args.y)[flat * args.y_stride + column]);
            if constexpr (C::HAS_GATES) {
                sum = fmaf(to_float(static_cast<const typename C::Gate*>(args.gates)[flat]), value, sum);
            } else {
                sum += value;
            }
        }
        static_cast<Element*>(args.out)[token * args.out_stride + column] = from_float<Element>(sum);
    }
}

}  // namespace smlora::combine_reference
