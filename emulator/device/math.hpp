// CUDA's mathematical and bit functions, as far as kernels use them. Part of cuda.hpp.
#pragma once

inline float __uint_as_float(unsigned bits) { return __builtin_bit_cast(float, bits); }
inline unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }
inline float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }
inline int __float_as_int(float value) { return __builtin_bit_cast(int, value); }

inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float expf(float value) { return __builtin_expf(value); }
inline float exp2f(float value) { return __builtin_exp2f(value); }
inline float __expf(float value) { return __builtin_expf(value); }
inline float logf(float value) { return __builtin_logf(value); }
inline float log2f(float value) { return __builtin_log2f(value); }
inline float erff(float value) { return __builtin_erff(value); }
inline float tanhf(float value) { return __builtin_tanhf(value); }
inline float sqrtf(float value) { return __builtin_sqrtf(value); }
inline float rsqrtf(float value) { return 1.0F / __builtin_sqrtf(value); }
inline float fabsf(float value) { return __builtin_fabsf(value); }
inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }

constexpr int min(int a, int b) { return b < a ? b : a; }
constexpr unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
constexpr long long min(long long a, long long b) { return b < a ? b : a; }
constexpr int max(int a, int b) { return a < b ? b : a; }
constexpr unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
constexpr long long max(long long a, long long b) { return a < b ? b : a; }

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline int __clzll(long long value) {
    return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline unsigned __brev(unsigned value) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= (value >> bit & 1U) << (31 - bit);
    return reversed;
}

/// The position of the offset-th set bit of `mask`, counted from bit `base` on (upwards, or downwards if negative).
inline unsigned __fns(unsigned mask, unsigned base, int offset) {
    const int step = offset < 0 ? -1 : 1;
    int left = offset < 0 ? -offset : offset;
    if (left == 0) return (mask >> base & 1U) != 0 ? base : 0xffffffffU;
    for (int bit = static_cast<int>(base); bit >= 0 && bit < 32; bit += step) {
        if ((mask >> bit & 1U) != 0 && --left == 0) return static_cast<unsigned>(bit);
    }
    return 0xffffffffU;
}

template <class T>
inline T __ldg(const T* address) {
    return *address;
}
