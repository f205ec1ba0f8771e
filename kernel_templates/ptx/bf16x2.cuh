// Arithmetic on pairs of bf16 (sm_80): what sm_90 has instructions for is a fused one there.
#pragma once

namespace smlora::ptx {

/// a x b + c, the sum rounded once; subnormal numbers as they are.
__device__ __forceinline__ unsigned multiply_add_bf16x2(unsigned a, unsigned b, unsigned c) {
    unsigned sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

/// Each half rounded once, to nearest even; subnormal numbers as they are.
__device__ __forceinline__ unsigned multiply_bf16x2(unsigned a, unsigned b) {
#if __CUDA_ARCH__ >= 900
    unsigned product;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
#else
    constexpr unsigned minus_zero = 0x80008000U;
    return multiply_add_bf16x2(a, b, minus_zero);
#endif
}

__device__ __forceinline__ unsigned add_bf16x2(unsigned a, unsigned b) {
#if __CUDA_ARCH__ >= 900
    unsigned sum;
    asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    constexpr unsigned one = 0x3F803F80U;
    return multiply_add_bf16x2(a, one, b);
#endif
}

}  // namespace smlora::ptx
