// Plain reference of gate_gradient: a thread takes one row at a time, its columns in order.
//
// Compile-time (struct C): WIDTH, LEFT_ROWS, RIGHT_ROWS, TOP_K, FLAT, E (FLAT = 0), SCALE_LEFT, HAS_BIAS; with HAS_BIAS
// also BIAS_WIDTH, BIAS_ROWS; types Element, Gate, Index.
#pragma once

#include "args/gate_gradient.h"
#include "expert_of.cuh"
#include "rows.cuh"
#include "types.cuh"

namespace smlora::gate_gradient_reference {

using Args = GateGradientArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using Gate = typename C::Gate;
    using Left = Rows<Element, C::LEFT_ROWS, C::TOP_K>;
    using Right = Rows<const Element, C::RIGHT_ROWS, C::TOP_K>;
    const Left left_rows{static_cast<Element*>(args.left), args.left_stride};
    const Right right_rows{static_cast<const Element*>(args.right), args.right_stride};
    const auto* const scattered_idxs = static_cast<const typename C::Index*>(args.scattered_idxs);
    const auto* const expert_offsets = static_cast<const typename C::Index*>(args.expert_offsets);
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < args.M;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int position = static_cast<int>(item);
        int flat = position;
        int kept = args.M;
        if constexpr (!C::FLAT) {
            flat = static_cast<int>(scattered_idxs[position]);
            kept = kept_rows<C::E>(expert_offsets);
        }
        float sum = 0.0F;
        if (position < kept) {
            auto* const left = left_rows.address(Left::index(position, flat));
            const auto* const right = right_rows.address(Right::index(position, flat));
            for (int column = 0; column < C::WIDTH; ++column) {
                sum = fmaf(to_float(left[column]), to_float(right[column]), sum);
            }
            if constexpr (C::SCALE_LEFT) {
                const float gate = to_float(static_cast<const Gate*>(args.gates)[flat]);
                for (int column = 0; column < C::WIDTH; ++column) {
                    left[column] = from_float<Element>(to_float(left[column]) * gate);
                }
            }
            if constexpr (C::HAS_BIAS) {
                const auto* const bias = static_cast<const Element*>(args.bias) +
                                         static_cast<int64>(expert_of<C::E>(expert_offsets, position)) * C::BIAS_WIDTH;
                using BiasRows = Rows<const Element, C::BIAS_ROWS, C::TOP_K>;
                const BiasRows bias_rows{static_cast<const Element*>(args.bias_rows), args.bias_rows_stride};
                const auto* const bias_row = bias_rows.address(BiasRows::index(position, flat));
                for (int column = 0; column < C::BIAS_WIDTH; ++column) {
                    sum = fmaf(to_float(bias_row[column]), to_float(bias[column]), sum);
                }
            }
        }
        static_cast<Gate*>(args.dgates)[flat] = from_float<Gate>(sum);
    }
}

}  // namespace smlora::gate_gradient_reference
