// Gradients of the gates: dot products of two rows, and of a row with the expert's bias; optionally scales the left row
// by its gate afterwards. Memory-bound, one read of every row.
//
// Roles: a warp takes one row at a time; each lane sums every 32nd unit in order, then the lanes are added up in a
// butterfly of fixed order. A left row that is to be scaled stays in registers when a lane has at most 8 units of it,
// and is read again (from L2) when it is wider. No shared memory, no barriers.
//
// combine_backward: FLAT = 1, LEFT_ROWS token (dout), RIGHT_ROWS scattered (y).
// backward_input: FLAT = 0, left = the product before its gate, right = x, bias rows = the gradient of the output.
//
// Compile-time (struct C): WIDTH, VECTOR (1: every left and right row 16-byte aligned and WIDTH a multiple of 16
// bytes), LEFT_ROWS, RIGHT_ROWS, TOP_K, FLAT, E (FLAT = 0), SCALE_LEFT, HAS_BIAS; with HAS_BIAS also BIAS_WIDTH,
// BIAS_VECTOR (the same as VECTOR for the bias and its rows), BIAS_ROWS; types Element, Gate, Index.
#pragma once

#include "args/gate_gradient.h"
#include "expert_of.cuh"
#include "row_unit.cuh"
#include "rows.cuh"
#include "types.cuh"

namespace smlora::gate_gradient {

using Args = GateGradientArgs;

template <class Unit>
__device__ __forceinline__ float dot(const typename Unit::Raw& left, const typename Unit::Raw& right, float sum) {
    float a[Unit::elements];
    float b[Unit::elements];
    Unit::unpack(left, a);
    Unit::unpack(right, b);
#pragma unroll
    for (int v = 0; v < Unit::elements; ++v) sum = fmaf(a[v], b[v], sum);
    return sum;
}

template <class Unit>
__device__ __forceinline__ typename Unit::Raw scaled(const typename Unit::Raw& raw, float factor) {
    float values[Unit::elements];
    Unit::unpack(raw, values);
#pragma unroll
    for (int v = 0; v < Unit::elements; ++v) values[v] *= factor;
    return Unit::pack(values);
}

/// This lane's part of <left, right>, added to `sum`; rows of WIDTH elements.
template <class Unit, int WIDTH>
__device__ __forceinline__ float row_dot(const typename Unit::Raw* left, const typename Unit::Raw* right, int lane,
                                         float sum) {
    using Raw = typename Unit::Raw;
    constexpr int units = units_of<Unit>(WIDTH);
    constexpr int unroll = ceil_div(units, 32) < 4 ? ceil_div(units, 32) : 4;
#pragma unroll 1
    for (int first = lane; first < units; first += 32 * unroll) {
        Raw a[unroll] = {};
        Raw b[unroll] = {};
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            if (first + 32 * u < units) {
                a[u] = left[first + 32 * u];
                b[u] = right[first + 32 * u];
            }
        }
#pragma unroll
        for (int u = 0; u < unroll; ++u) sum = dot<Unit>(a[u], b[u], sum);
    }
    return sum;
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using Unit = RowUnit<Element, C::VECTOR>;
    using Raw = typename Unit::Raw;
    constexpr int units = units_of<Unit>(C::WIDTH);
    constexpr int units_of_lane = ceil_div(units, 32);
    constexpr bool hold_left = C::SCALE_LEFT && units_of_lane <= 8;
    static_assert(C::WIDTH % Unit::elements == 0, "whole units");
    static_assert(!C::SCALE_LEFT || C::LEFT_ROWS != rows_token, "a row shared by entries cannot be scaled in place");
    static_assert(!C::FLAT || (C::LEFT_ROWS != rows_grouped && C::RIGHT_ROWS != rows_grouped), "no sorted positions");
    static_assert(!C::FLAT || !C::HAS_BIAS, "the expert of an entry is known by its sorted position");

    using Left = Rows<Element, C::LEFT_ROWS, C::TOP_K>;
    using Right = Rows<const Element, C::RIGHT_ROWS, C::TOP_K>;
    const Left left_rows{static_cast<Element*>(args.left), args.left_stride};
    const Right right_rows{static_cast<const Element*>(args.right), args.right_stride};
    const auto* const scattered_idxs = static_cast<const typename C::Index*>(args.scattered_idxs);
    const auto* const expert_offsets = static_cast<const typename C::Index*>(args.expert_offsets);
    auto* const dgates = static_cast<typename C::Gate*>(args.dgates);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 warps = static_cast<int64>(gridDim.x) * (blockDim.x / 32);

    int kept = args.M;
    if constexpr (!C::FLAT) kept = kept_rows<C::E>(expert_offsets);

    for (int64 item = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < args.M;
         item += warps) {
        const int position = static_cast<int>(item);
        int flat = position;
        if constexpr (!C::FLAT) flat = static_cast<int>(scattered_idxs[position]);
        if (position >= kept) {  // the whole warp: a position is a warp's
            if (lane == 0) dgates[flat] = from_float<typename C::Gate>(0.0F);
            continue;
        }

        auto* const left = reinterpret_cast<Raw*>(left_rows.address(Left::index(position, flat)));
        const auto* const right = reinterpret_cast<const Raw*>(right_rows.address(Right::index(position, flat)));

        float sum = 0.0F;
        if constexpr (hold_left) {
            const float gate = to_float(static_cast<const typename C::Gate*>(args.gates)[flat]);
            Raw held[units_of_lane] = {};
#pragma unroll
            for (int u = 0; u < units_of_lane; ++u) {
                if (lane + 32 * u < units) held[u] = left[lane + 32 * u];
            }
#pragma unroll
            for (int u = 0; u < units_of_lane; ++u) {
                if (lane + 32 * u < units) sum = dot<Unit>(held[u], right[lane + 32 * u], sum);
            }
#pragma unroll
            for (int u = 0; u < units_of_lane; ++u) {
                if (lane + 32 * u < units) left[lane + 32 * u] = scaled<Unit>(held[u], gate);
            }
        } else {
            sum = row_dot<Unit, C::WIDTH>(left, right, lane, sum);
            if constexpr (C::SCALE_LEFT) {
                const float gate = to_float(static_cast<const typename C::Gate*>(args.gates)[flat]);
#pragma unroll 4
                for (int unit = lane; unit < units; unit += 32) left[unit] = scaled<Unit>(left[unit], gate);
            }
        }

        if constexpr (C::HAS_BIAS) {
            using BiasUnit = RowUnit<Element, C::BIAS_VECTOR>;
            using BiasRaw = typename BiasUnit::Raw;
            static_assert(C::BIAS_WIDTH % BiasUnit::elements == 0, "whole units");
            const int expert = expert_of<C::E>(expert_offsets, position);
            using BiasRows = Rows<const Element, C::BIAS_ROWS, C::TOP_K>;
            const BiasRows bias_rows{static_cast<const Element*>(args.bias_rows), args.bias_rows_stride};
            const auto* const bias_row =
                reinterpret_cast<const BiasRaw*>(bias_rows.address(BiasRows::index(position, flat)));
            const auto* const bias = reinterpret_cast<const BiasRaw*>(static_cast<const Element*>(args.bias) +
                                                                      static_cast<int64>(expert) * C::BIAS_WIDTH);
            sum = row_dot<BiasUnit, C::BIAS_WIDTH>(bias_row, bias, lane, sum);
        }

#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, distance);
        if (lane == 0) dgates[flat] = from_float<typename C::Gate>(sum);
    }
}

}  // namespace smlora::gate_gradient
