// What a thread moves of a row at once: 16 bytes where every row is 16-byte aligned, else one element.
#pragma once

#include "types.cuh"

namespace smlora {

template <class Element, int Vector>
struct RowUnit;

template <class Element>
struct RowUnit<Element, 0> {
    using Raw = Element;
    static constexpr int elements = 1;

    __device__ __forceinline__ static void unpack(Raw raw, float (&values)[elements]) { values[0] = to_float(raw); }
    __device__ __forceinline__ static Raw pack(const float (&values)[elements]) {
        return from_float<Element>(values[0]);
    }
};

template <class Element>
struct RowUnit<Element, 1> {
    using Raw = Vec16;
    static constexpr int elements = 16 / static_cast<int>(sizeof(Element));

    __device__ __forceinline__ static void unpack(const Raw& raw, float (&values)[elements]) {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            if constexpr (is_same<Element, float>::value) {
                values[w] = __uint_as_float(raw.word[w]);
            } else {
                values[2 * w] = to_float(Element{static_cast<uint16>(raw.word[w] & 0xffffU)});
                values[2 * w + 1] = to_float(Element{static_cast<uint16>(raw.word[w] >> 16)});
            }
        }
    }

    __device__ __forceinline__ static Raw pack(const float (&values)[elements]) {
        Raw raw;
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            if constexpr (is_same<Element, float>::value) {
                raw.word[w] = __float_as_uint(values[w]);
            } else {
                raw.word[w] = pack2<Element>(values[2 * w], values[2 * w + 1]);
            }
        }
        return raw;
    }
};

/// Units of a row of `width` elements.
template <class Unit>
__host__ __device__ constexpr int units_of(int width) {
    return width / Unit::elements;
}

}  // namespace smlora
