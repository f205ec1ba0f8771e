// Decodes quantised weights into the type that products compute in: memory-bound, codes and scales are read once and
// values written once.
//
// Roles: a warp takes a segment of a matrix, `unroll` times 32 units beside each other; the codes and scales of a
// thread's units are under way at once. The values of 4-bit codes stand in shared memory, one for each bank, so that no
// two lanes wait for each other.
//
// Compile-time (struct C): ENCODING, ROWS, COLUMNS, BLOCK, PARTS, VECTOR (1: `out` and the codes of every unit aligned,
// COLUMNS and BLOCK multiples of a unit; 0: single elements), DOUBLE and OUTER_BLOCK (nf4, fp4), GLOBAL_DIVIDES
// (nvfp4), ARRANGED (whether scales are in the order of args/packed_weight.h); types Element (of out),
// Scale (float, bf16, fp16, e8m0, e4m3 or byte) and Index.
#pragma once

#include "args/packed_weight.h"
#include "args/unpack_weights.h"
#include "float8.cuh"
#include "row_unit.cuh"
#include "types.cuh"

namespace smlora::unpack_weights {

using Args = UnpackWeightsArgs;

/// As many bytes as the codes of a unit have.
template <int BYTES>
struct CodesOf;
template <>
struct CodesOf<1> {
    using type = unsigned char;
};
template <>
struct CodesOf<2> {
    using type = uint16;
};
template <>
struct CodesOf<4> {
    using type = uint32;
};
template <>
struct CodesOf<8> {
    using type = uint64;
};

/// The value of a 4-bit code.
template <class C>
__device__ __forceinline__ float nibble_value(const Args& args, int code) {
    if constexpr (C::ENCODING == nf4 || C::ENCODING == fp4) return args.table[code];
    if constexpr (C::ENCODING == int4) return static_cast<float>(code - 8);
    // e2m1, of mxfp4 twice as much: see scale_of.
    const float magnitude = float_from_e2m1(code & 7) * (C::ENCODING == mxfp4 ? 2.0F : 1.0F);
    return code < 8 ? magnitude : -magnitude;
}

/// The scale of the unit that begins at this column; every value of the unit has the same.
template <class C>
__device__ __forceinline__ float scale_of(const Args& args, int expert, int row, int column) {
    using Scale = typename C::Scale;
    constexpr int part_rows = C::ROWS / C::PARTS;
    const auto* const scales = static_cast<const Scale*>(args.scales);
    const int64 line = static_cast<int64>(expert) * C::ROWS + row;
    const auto arranged = [&] {
        constexpr weight::ScaleOrder order = weight::scale_order(C::ENCODING, C::BLOCK);
        return scales[weight::arranged_index(order, expert, row, column, C::ROWS, C::COLUMNS)];
    };
    if constexpr (C::ARRANGED != 0 && (C::ENCODING == nf4 || C::ENCODING == fp4 || C::ENCODING == fp8)) {
        return to_float(arranged());
    } else if constexpr (C::ENCODING == nf4 || C::ENCODING == fp4) {
        const int64 index = (line * C::COLUMNS + column) / C::BLOCK;
        if constexpr (C::DOUBLE) {
            const float inner = args.outer_table[scales[index].bits];
            return __fadd_rn(__fmul_rn(inner, args.outer_scales[index / C::OUTER_BLOCK]), *args.outer_offset);
        } else {
            return to_float(scales[index]);
        }
    } else if constexpr (C::ENCODING == int8) {
        return to_float(scales[line]);
    } else if constexpr (C::ENCODING == fp8) {
        // Not ceil_div: a block may be larger than an int.
        constexpr int part_blocks = (part_rows - 1) / C::BLOCK + 1;
        constexpr int row_blocks = (C::COLUMNS - 1) / C::BLOCK + 1;
        const int block_row = row / part_rows * part_blocks + row % part_rows / C::BLOCK;
        return to_float(
            scales[(static_cast<int64>(expert) * C::PARTS * part_blocks + block_row) * row_blocks + column / C::BLOCK]);
    } else {
        const Scale scale = C::ARRANGED != 0 ? arranged() : scales[line * (C::COLUMNS / C::BLOCK) + column / C::BLOCK];
        if constexpr (C::ENCODING == mxfp4) {
            // Half of it: 2^128 is no number of fp32, and half of the codes times 2^128 are.
            return half_of(scale);
        } else if constexpr (C::ENCODING == nvfp4) {
            const float outer =
                args.outer_scales[expert * args.outer_expert_stride + row / part_rows * args.outer_part_stride];
            return C::GLOBAL_DIVIDES ? __fdiv_rn(to_float(scale), outer) : __fmul_rn(outer, to_float(scale));
        } else {
            return to_float(scale);
        }
    }
}

/// Rounded once to fp32, or for int4 to the type of its scale.
template <class C>
__device__ __forceinline__ float decoded(float value, float scale) {
    const float product = __fmul_rn(value, scale);
    if constexpr (C::ENCODING == int8) return __fmul_rn(product, 1.0F / 127);
    if constexpr (C::ENCODING == int4) return to_float(from_float<typename C::Scale>(product));
    return product;
}

/// Entry `i` of the slice's table.
template <class Index>
__device__ __forceinline__ Index slice_entry(const Args& args, int i) {
    const auto* const offsets = static_cast<const Index*>(args.expert_offsets);
    const bool is_last = args.first_expert + args.slice_experts >= args.all_experts;
    if (i > args.slice_experts && is_last) return static_cast<Index>(args.M);
    const int before = args.first_expert + (i < args.experts ? i : args.experts);
    return before == 0 ? Index{0} : offsets[before - 1];
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Unit = RowUnit<typename C::Element, C::VECTOR>;
    using Raw = typename Unit::Raw;
    constexpr bool nibbles = is_nibbles(C::ENCODING);
    constexpr bool high_first = C::ENCODING == nf4 || C::ENCODING == fp4;
    constexpr int elements = Unit::elements;
    constexpr int code_bits = nibbles ? 4 : 8;
    constexpr int unit_bytes = ceil_div(elements * code_bits, 8);
    constexpr int units = units_of<Unit>(C::COLUMNS);
    constexpr int64 matrix_segments = segments(C::ROWS, units);
    using Codes = typename CodesOf<unit_bytes>::type;
    static_assert(C::COLUMNS % elements == 0, "whole units");
    static_assert(C::ENCODING == int8 || C::BLOCK % elements == 0, "a unit has one scale");

    __shared__ float values[16];
    if constexpr (nibbles) {
        if (threadIdx.x < 16) values[threadIdx.x] = nibble_value<C>(args, static_cast<int>(threadIdx.x));
        __syncthreads();
    }
    if (args.slice != nullptr && blockIdx.x == 0) {
        using Index = typename C::Index;
        for (int i = static_cast<int>(threadIdx.x); i < args.slice_experts + 2; i += static_cast<int>(blockDim.x)) {
            static_cast<Index*>(args.slice)[i] = slice_entry<Index>(args, i);
        }
    }
    const auto* const offsets = static_cast<const typename C::Index*>(args.expert_offsets);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 warps = static_cast<int64>(gridDim.x) * (blockDim.x / 32);
    const int64 items = args.experts * matrix_segments;

    for (int64 item = static_cast<int64>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < items;
         item += warps) {
        const int matrix = static_cast<int>(item / matrix_segments);
        const int expert = args.first_expert + matrix;
        if (offsets != nullptr && offsets[expert] == (expert == 0 ? 0 : offsets[expert - 1])) continue;
        const int64 first = item % matrix_segments * (32 * unroll);
        const int first_row = static_cast<int>(first / units);
        const int first_unit = static_cast<int>(first % units) + lane;

        const int64 begin = static_cast<int64>(expert) * C::ROWS * C::COLUMNS + (first + lane) * elements;
        Codes codes[unroll] = {};
        float scales[unroll] = {};
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            const int unit = first_unit + 32 * u;
            const int row = first_row + unit / units;
            if (row < C::ROWS) {
                codes[u] = *reinterpret_cast<const Codes*>(static_cast<const unsigned char*>(args.codes) +
                                                           (begin + 32 * u * elements) * code_bits / 8);
                scales[u] = scale_of<C>(args, expert, row, unit % units * elements);
            }
        }
        auto* const out =
            static_cast<typename C::Element*>(args.out) + static_cast<int64>(matrix) * C::ROWS * C::COLUMNS;
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            if (first_row + (first_unit + 32 * u) / units >= C::ROWS) continue;
            float unpacked[elements];
#pragma unroll
            for (int i = 0; i < elements; ++i) {
                if constexpr (nibbles) {
                    // Of a single element: whether it is the first of its byte is known from where it is.
                    const int at = C::VECTOR ? i : static_cast<int>((begin + 32 * u) % 2);
                    const int nibble = high_first ? at ^ 1 : at;
                    unpacked[i] = decoded<C>(values[static_cast<uint32>(codes[u] >> (4 * nibble)) & 15U], scales[u]);
                } else {
                    const auto code = static_cast<unsigned char>(codes[u] >> (8 * i));
                    const float value =
                        C::ENCODING == int8 ? static_cast<float>(static_cast<signed char>(code)) : to_float(e4m3{code});
                    unpacked[i] = decoded<C>(value, scales[u]);
                }
            }
            reinterpret_cast<Raw*>(out)[first + lane + 32 * u] = Unit::pack(unpacked);
        }
    }
}

}  // namespace smlora::unpack_weights
