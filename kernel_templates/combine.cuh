// Sums the rows of each token, each times its gate, in fp32 and in the order of the choices: memory-bound, y is read
// once.
//
// Roles: a warp takes a segment of a token's row, 32 lanes x UNROLL units; a thread keeps UNROLL x CHOICES loads under
// way (four to eight of 16 bytes) and adds them up in order. No shared memory, no barriers.
//
// Compile-time (struct C): TOP_K, WIDTH, VECTOR (1: every row of both sides 16-byte aligned and WIDTH a multiple of
// 16 bytes; 0: single elements), HAS_GATES; types Element, Gate.
#pragma once

#include "args/combine.h"
#include "ptx/synchronise.cuh"
#include "row_unit.cuh"
#include "types.cuh"

namespace smlora::combine {

using Args = CombineKernelArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Unit = RowUnit<typename C::Element, C::VECTOR>;
    using Raw = typename Unit::Raw;
    constexpr int units = units_of<Unit>(C::WIDTH);
    constexpr RowSegments shape = combine_segments(units, C::TOP_K);
    constexpr int unroll = shape.unroll;
    constexpr int segments = shape.count;
    constexpr int choices = C::TOP_K < 8 ? C::TOP_K : 8;
    static_assert(C::WIDTH % Unit::elements == 0, "whole units");

    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 warps = static_cast<int64>(gridDim.x) * (blockDim.x / 32);
    const int64 items = static_cast<int64>(args.T) * segments;
    ptx::wait_for_earlier_kernels();

    for (int64 item = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < items;
         item += warps) {
        const int64 token = item / segments;
        const int first = static_cast<int>(item % segments) * 32 * unroll + lane;
        const auto* const gates = static_cast<const typename C::Gate*>(args.gates) + token * C::TOP_K;
        const auto* const y = static_cast<const typename C::Element*>(args.y) + token * C::TOP_K * args.y_stride;

        float sums[unroll][Unit::elements] = {};
#pragma unroll 1
        for (int first_choice = 0; first_choice < C::TOP_K; first_choice += choices) {
            Raw raw[choices][unroll] = {};
            float gate[choices] = {};
#pragma unroll
            for (int j = 0; j < choices; ++j) {
                const int choice = first_choice + j;
                if (choice < C::TOP_K) {
                    const auto* const row = reinterpret_cast<const Raw*>(y + choice * args.y_stride);
#pragma unroll
                    for (int u = 0; u < unroll; ++u) {
                        if (first + 32 * u < units) raw[j][u] = row[first + 32 * u];
                    }
                    if constexpr (C::HAS_GATES) gate[j] = to_float(gates[choice]);
                }
            }
#pragma unroll
            for (int j = 0; j < choices; ++j) {
                if (first_choice + j < C::TOP_K) {
#pragma unroll
                    for (int u = 0; u < unroll; ++u) {
                        float values[Unit::elements];
                        Unit::unpack(raw[j][u], values);
#pragma unroll
                        for (int v = 0; v < Unit::elements; ++v) {
                            sums[u][v] = C::HAS_GATES ? fmaf(gate[j], values[v], sums[u][v]) : sums[u][v] + values[v];
                        }
                    }
                }
            }
        }

        auto* const out = reinterpret_cast<Raw*>(static_cast<typename C::Element*>(args.out) + token * args.out_stride);
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            if (first + 32 * u < units) out[first + 32 * u] = Unit::pack(sums[u]);
        }
    }
}

}  // namespace smlora::combine
