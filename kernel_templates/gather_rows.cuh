// Gathers rows into sorted (or flat) order, each times its gate: memory-bound, one read and one write of every row.
//
// Roles: a warp takes a segment of a row, 32 lanes x UNROLL units, so that UNROLL loads of a thread are under way at
// once; segments of a row are neighbours, and a grid of any size walks them all. No shared memory, no barriers.
//
// Compile-time (struct C): E (FLAT = 0), WIDTH, VECTOR (1: every row of both sides 16-byte aligned and WIDTH a multiple
// of 16 bytes; 0: single elements), ROWS (the order of the rows read), TOP_K, FLAT, HAS_GATES; types Element, Gate,
// Index.
#pragma once

#include "args/gather_rows.h"
#include "expert_of.cuh"
#include "row_unit.cuh"
#include "rows.cuh"
#include "types.cuh"

namespace smlora::gather_rows {

using Args = GatherRowsArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Unit = RowUnit<typename C::Element, C::VECTOR>;
    using Raw = typename Unit::Raw;
    constexpr int units = units_of<Unit>(C::WIDTH);
    constexpr RowSegments shape = gather_segments(units);
    constexpr int unroll = shape.unroll;
    constexpr int segments = shape.count;
    static_assert(C::WIDTH % Unit::elements == 0, "whole units");

    using From = Rows<const typename C::Element, C::ROWS, C::TOP_K>;
    const From rows{static_cast<const typename C::Element*>(args.rows), args.rows_stride};
    const auto* const gates = static_cast<const typename C::Gate*>(args.gates);
    const auto* const scattered_idxs = static_cast<const typename C::Index*>(args.scattered_idxs);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 warps = static_cast<int64>(gridDim.x) * (blockDim.x / 32);
    const int64 items = static_cast<int64>(args.M) * segments;

    int kept = args.M;
    if constexpr (!C::FLAT) kept = kept_rows<C::E>(static_cast<const typename C::Index*>(args.expert_offsets));

    for (int64 item = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < items;
         item += warps) {
        const int position = static_cast<int>(item / segments);
        const int first = static_cast<int>(item % segments) * 32 * unroll + lane;

        Raw raw[unroll] = {};
        if (position < kept) {
            int flat = position;
            if constexpr (!C::FLAT) flat = static_cast<int>(scattered_idxs[position]);
            const auto* const row = reinterpret_cast<const Raw*>(rows.address(From::index(position, flat)));
#pragma unroll
            for (int u = 0; u < unroll; ++u) {
                if (first + 32 * u < units) raw[u] = row[first + 32 * u];
            }
            if constexpr (C::HAS_GATES) {
                const float gate = to_float(gates[flat]);
#pragma unroll
                for (int u = 0; u < unroll; ++u) {
                    float values[Unit::elements];
                    Unit::unpack(raw[u], values);
#pragma unroll
                    for (int v = 0; v < Unit::elements; ++v) values[v] *= gate;
                    raw[u] = Unit::pack(values);
                }
            }
        }

        auto* const out =
            reinterpret_cast<Raw*>(static_cast<typename C::Element*>(args.out) + position * args.out_stride);
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            if (first + 32 * u < units) out[first + 32 * u] = raw[u];
        }
    }
}

}  // namespace smlora::gather_rows
