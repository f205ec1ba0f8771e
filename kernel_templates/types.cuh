// Element types and what every template needs of them. NVRTC compiles this without any header of the toolkit.
#pragma once

#include "args/integers.h"
#include "ptx/convert.cuh"

namespace smlora {

using int64 = long long;
using uint16 = unsigned short;
using uint32 = unsigned int;
using uint64 = unsigned long long;

struct bf16 {
    uint16 bits;
};
struct fp16 {
    uint16 bits;
};

__device__ __forceinline__ float to_float(bf16 value) { return ptx::float_from_bf16(value.bits); }
__device__ __forceinline__ float to_float(fp16 value) { return ptx::float_from_fp16(value.bits); }
__device__ __forceinline__ float to_float(float value) { return value; }

template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) {
    return bf16{ptx::bf16_from_float(value)};
}
template <>
__device__ __forceinline__ fp16 from_float<fp16>(float value) {
    return fp16{ptx::fp16_from_float(value)};
}
template <>
__device__ __forceinline__ float from_float<float>(float value) {
    return value;
}

/// Two floats as two neighbouring 16-bit elements, `low` at the lower address.
template <class T>
__device__ __forceinline__ uint32 pack2(float low, float high);
template <>
__device__ __forceinline__ uint32 pack2<bf16>(float low, float high) {
    return ptx::bf16x2_from_floats(low, high);
}
template <>
__device__ __forceinline__ uint32 pack2<fp16>(float low, float high) {
    return ptx::fp16x2_from_floats(low, high);
}

/// What one thread moves at once.
struct alignas(16) Vec16 {
    uint32 word[4];
};

template <class A, class B>
struct is_same {
    static constexpr bool value = false;
};
template <class A>
struct is_same<A, A> {
    static constexpr bool value = true;
};

/// A compile-time integer as a value, to pass to a generic lambda.
template <int Value>
struct Int {
    static constexpr int value = Value;
};

/// Calls `work` with Int<0>, .. Int<COUNT - 1>.
template <int COUNT, int FIRST = 0, class Work>
__device__ __forceinline__ void for_each_int(Work work) {
    if constexpr (FIRST < COUNT) {
        work(Int<FIRST>{});
        for_each_int<COUNT, FIRST + 1>(work);
    }
}

}  // namespace smlora
