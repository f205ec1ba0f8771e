// Plain reference of activation: a thread takes one element of a at a time, and adds up the gradient of a row's gate if
// that is its first.
//
// Compile-time (struct C): WIDTH, ACTIVATION, INTERLEAVED, BACKWARD, WRITES_A, HAS_GATES; types Element, Gate, Index.
#pragma once

#include "args/activation.h"
#include "gated_activation.cuh"
#include "types.cuh"

namespace smlora::activation_reference {

using Args = ActivationKernelArgs;

template <class C>
__device__ __forceinline__ Gated activated(const Args& args, int64 row, int64 column) {
    const auto* const h = static_cast<const typename C::Element*>(args.h) + row * args.h_stride;
    const int64 gate = C::INTERLEAVED ? 2 * column : column;
    const int64 up = C::INTERLEAVED ? 2 * column + 1 : C::WIDTH + column;
    return gated<C::ACTIVATION>(to_float(h[gate]), to_float(h[up]), args.alpha, args.limit);
}

template <class C>
__device__ __forceinline__ float gradient_of(const Args& args, int64 row, int64 column) {
    return to_float(static_cast<const typename C::Element*>(args.da)[row * args.da_stride + column]);
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    const int64 elements = static_cast<int64>(args.rows) * C::WIDTH;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < elements;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int64 row = item / C::WIDTH;
        const int64 column = item % C::WIDTH;
        const Gated result = activated<C>(args, row, column);
        if constexpr (C::WRITES_A) {
            static_cast<Element*>(args.a)[row * args.a_stride + column] = from_float<Element>(result.value);
        }
        if constexpr (C::BACKWARD) {
            float da = gradient_of<C>(args, row, column);
            if constexpr (C::HAS_GATES) {
                const auto entry = static_cast<const typename C::Index*>(args.scattered_idxs)[row];
                da *= to_float(static_cast<const typename C::Gate*>(args.gates)[entry]);
                if (column == 0) {
                    float sum = 0.0F;
                    for (int64 c = 0; c < C::WIDTH; ++c) {
                        sum = fmaf(gradient_of<C>(args, row, c), activated<C>(args, row, c).value, sum);
                    }
                    static_cast<typename C::Gate*>(args.dgates)[entry] = from_float<typename C::Gate>(sum);
                }
            }
            auto* const dh = static_cast<Element*>(args.dh) + row * args.dh_stride;
            dh[C::INTERLEAVED ? 2 * column : column] = from_float<Element>(da * result.d_gate);
            dh[C::INTERLEAVED ? 2 * column + 1 : C::WIDTH + column] = from_float<Element>(da * result.d_up);
        }
    }
}

}  // namespace smlora::activation_reference
