// Arithmetic on pairs of bf16 (sm_90).
#pragma once

namespace smlora::ptx {

/// Each half rounded once, to nearest even; subnormal numbers as they are.
__device__ __forceinline__ unsigned multiply_bf16x2(unsigned a, unsigned b) {
    unsigned product;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

__device__ __forceinline__ unsigned add_bf16x2(unsigned a, unsigned b) {
    unsigned sum;
    asm("add.rn.bf16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
    return sum;
}

/// a x b + c, the sum rounded once.
__device__ __forceinline__ unsigned multiply_add_bf16x2(unsigned a, unsigned b, unsigned c) {
    unsigned sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

}  // namespace smlora::ptx
