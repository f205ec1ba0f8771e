// Plain reference of activation: a thread takes one element of a at a time.
//
// Compile-time (struct C): WIDTH, ACTIVATION, INTERLEAVED, BACKWARD, WRITES_A; type Element.
#pragma once

#include "args/activation.h"
#include "gated_activation.cuh"
#include "types.cuh"

namespace smlora::activation_reference {

using Args = ActivationKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    const int64 elements = static_cast<int64>(args.rows) * C::WIDTH;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < elements;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int64 row = item / C::WIDTH;
        const int64 column = item % C::WIDTH;
        const int64 gate = C::INTERLEAVED ? 2 * column : column;
        const int64 up = C::INTERLEAVED ? 2 * column + 1 : C::WIDTH + column;
        const auto* const h = static_cast<const Element*>(args.h) + row * args.h_stride;
        const Gated result = gated<C::ACTIVATION>(to_float(h[gate]), to_float(h[up]), args.alpha, args.limit);
        if constexpr (C::WRITES_A) {
            static_cast<Element*>(args.a)[row * args.a_stride + column] = from_float<Element>(result.value);
        }
        if constexpr (C::BACKWARD) {
            const float da = to_float(static_cast<const Element*>(args.da)[row * args.da_stride + column]);
            auto* const dh = static_cast<Element*>(args.dh) + row * args.dh_stride;
            dh[gate] = from_float<Element>(da * result.d_gate);
            dh[up] = from_float<Element>(da * result.d_up);
        }
    }
}

}  // namespace smlora::activation_reference
