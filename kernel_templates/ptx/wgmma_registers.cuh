// d += a b on a warpgroup's tensor cores with a in registers: else as in wgmma.cuh, which has the fence, the commit and
// the wait (sm_90a).
#pragma once

#include "ptx/wgmma.cuh"
#include "types.cuh"

namespace smlora::ptx {

/// d += a b, or d = a b unless `accumulate`. a is 64 x 16, b is 16 x N by wgmma_operand; B_STRIDED: 1 if b's reduction
/// is strided. d as in Wgmma. Thread t of the warpgroup holds of a the rows t / 32 * 16 + t % 32 / 4 (+ 8) and the k t
/// % 4 * 2 (+ 1) (+ 8), two in a register, the lower k in the lower half: a[(k + 8 ? 2 : 0) + (row + 8 ? 1 : 0)]. From
/// the instruction until the wgmma_wait that covers it, a is the tensor cores': it may be neither read nor written,
/// only given to other wgmmas, and the array lives at least as long. Between the last write to it and the instruction
/// stands a wgmma_fence.
template <class Element, int N, int B_STRIDED>
struct WgmmaOfRegisters;

// The registers of d for N columns but for the first, each through ITEM.
#define SMLORA_REGISTERS_8(ITEM) ITEM(1) ITEM(2) ITEM(3)
#define SMLORA_REGISTERS_16(ITEM) SMLORA_REGISTERS_8(ITEM) ITEM(4) ITEM(5) ITEM(6) ITEM(7)
#define SMLORA_REGISTERS_24(ITEM) SMLORA_REGISTERS_16(ITEM) ITEM(8) ITEM(9) ITEM(10) ITEM(11)
#define SMLORA_REGISTERS_32(ITEM) SMLORA_REGISTERS_24(ITEM) ITEM(12) ITEM(13) ITEM(14) ITEM(15)
#define SMLORA_REGISTERS_40(ITEM) SMLORA_REGISTERS_32(ITEM) ITEM(16) ITEM(17) ITEM(18) ITEM(19)
#define SMLORA_REGISTERS_48(ITEM) SMLORA_REGISTERS_40(ITEM) ITEM(20) ITEM(21) ITEM(22) ITEM(23)
#define SMLORA_REGISTERS_56(ITEM) SMLORA_REGISTERS_48(ITEM) ITEM(24) ITEM(25) ITEM(26) ITEM(27)
#define SMLORA_REGISTERS_64(ITEM) SMLORA_REGISTERS_56(ITEM) ITEM(28) ITEM(29) ITEM(30) ITEM(31)
#define SMLORA_REGISTERS_72(ITEM) SMLORA_REGISTERS_64(ITEM) ITEM(32) ITEM(33) ITEM(34) ITEM(35)
#define SMLORA_REGISTERS_80(ITEM) SMLORA_REGISTERS_72(ITEM) ITEM(36) ITEM(37) ITEM(38) ITEM(39)
#define SMLORA_REGISTERS_88(ITEM) SMLORA_REGISTERS_80(ITEM) ITEM(40) ITEM(41) ITEM(42) ITEM(43)
#define SMLORA_REGISTERS_96(ITEM) SMLORA_REGISTERS_88(ITEM) ITEM(44) ITEM(45) ITEM(46) ITEM(47)
#define SMLORA_REGISTERS_104(ITEM) SMLORA_REGISTERS_96(ITEM) ITEM(48) ITEM(49) ITEM(50) ITEM(51)
#define SMLORA_REGISTERS_112(ITEM) SMLORA_REGISTERS_104(ITEM) ITEM(52) ITEM(53) ITEM(54) ITEM(55)
#define SMLORA_REGISTERS_120(ITEM) SMLORA_REGISTERS_112(ITEM) ITEM(56) ITEM(57) ITEM(58) ITEM(59)
#define SMLORA_REGISTERS_128(ITEM) SMLORA_REGISTERS_120(ITEM) ITEM(60) ITEM(61) ITEM(62) ITEM(63)
#define SMLORA_REGISTERS_136(ITEM) SMLORA_REGISTERS_128(ITEM) ITEM(64) ITEM(65) ITEM(66) ITEM(67)
#define SMLORA_REGISTERS_144(ITEM) SMLORA_REGISTERS_136(ITEM) ITEM(68) ITEM(69) ITEM(70) ITEM(71)
#define SMLORA_REGISTERS_152(ITEM) SMLORA_REGISTERS_144(ITEM) ITEM(72) ITEM(73) ITEM(74) ITEM(75)
#define SMLORA_REGISTERS_160(ITEM) SMLORA_REGISTERS_152(ITEM) ITEM(76) ITEM(77) ITEM(78) ITEM(79)

#define SMLORA_NAME(I) ", %" #I
#define SMLORA_OPERAND(I) , "+f"(d[I])

// A, B, C, D: numbers of the operands behind d that a has; P, U: of b and of how it lies; Q: of `accumulate`.
#define SMLORA_WGMMA_OF(ELEMENT, TYPE, N, A, B, C, D, P, U, Q)                                                    \
    template <int B_STRIDED>                                                                                      \
    struct WgmmaOfRegisters<ELEMENT, N, B_STRIDED> {                                                              \
        static __device__ __forceinline__ void run(float (&d)[N / 2], const uint32 (&a)[4], uint64 b,             \
                                                   bool accumulate = true) {                                      \
            asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #Q                                              \
                         ", 0;\n\t"                                                                               \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE                          \
                         " {%0" SMLORA_REGISTERS_##N(SMLORA_NAME) "}, {%" #A ", %" #B ", %" #C ", %" #D "}, %" #P \
                                                                  ", p, 1, 1, %" #U ";\n\t}"                      \
                         : "+f"(d[0])SMLORA_REGISTERS_##N(SMLORA_OPERAND)                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_STRIDED),                    \
                           "r"(static_cast<int>(accumulate))                                                      \
                         : "memory");                                                                             \
        }                                                                                                         \
    };
#define SMLORA_WGMMA(N, A, B, C, D, P, U, Q)              \
    SMLORA_WGMMA_OF(bf16, "bf16", N, A, B, C, D, P, U, Q) \
    SMLORA_WGMMA_OF(fp16, "f16", N, A, B, C, D, P, U, Q)

SMLORA_WGMMA(8, 4, 5, 6, 7, 8, 9, 10)
SMLORA_WGMMA(16, 8, 9, 10, 11, 12, 13, 14)
SMLORA_WGMMA(24, 12, 13, 14, 15, 16, 17, 18)
SMLORA_WGMMA(32, 16, 17, 18, 19, 20, 21, 22)
SMLORA_WGMMA(40, 20, 21, 22, 23, 24, 25, 26)
SMLORA_WGMMA(48, 24, 25, 26, 27, 28, 29, 30)
SMLORA_WGMMA(56, 28, 29, 30, 31, 32, 33, 34)
SMLORA_WGMMA(64, 32, 33, 34, 35, 36, 37, 38)
SMLORA_WGMMA(72, 36, 37, 38, 39, 40, 41, 42)
SMLORA_WGMMA(80, 40, 41, 42, 43, 44, 45, 46)
SMLORA_WGMMA(88, 44, 45, 46, 47, 48, 49, 50)
SMLORA_WGMMA(96, 48, 49, 50, 51, 52, 53, 54)
SMLORA_WGMMA(104, 52, 53, 54, 55, 56, 57, 58)
SMLORA_WGMMA(112, 56, 57, 58, 59, 60, 61, 62)
SMLORA_WGMMA(120, 60, 61, 62, 63, 64, 65, 66)
SMLORA_WGMMA(128, 64, 65, 66, 67, 68, 69, 70)
SMLORA_WGMMA(136, 68, 69, 70, 71, 72, 73, 74)
SMLORA_WGMMA(144, 72, 73, 74, 75, 76, 77, 78)
SMLORA_WGMMA(152, 76, 77, 78, 79, 80, 81, 82)
SMLORA_WGMMA(160, 80, 81, 82, 83, 84, 85, 86)

#undef SMLORA_WGMMA
#undef SMLORA_WGMMA_OF
#undef SMLORA_NAME
#undef SMLORA_OPERAND
#undef SMLORA_REGISTERS_8
#undef SMLORA_REGISTERS_16
#undef SMLORA_REGISTERS_24
#undef SMLORA_REGISTERS_32
#undef SMLORA_REGISTERS_40
#undef SMLORA_REGISTERS_48
#undef SMLORA_REGISTERS_56
#undef SMLORA_REGISTERS_64
#undef SMLORA_REGISTERS_72
#undef SMLORA_REGISTERS_80
#undef SMLORA_REGISTERS_88
#undef SMLORA_REGISTERS_96
#undef SMLORA_REGISTERS_104
#undef SMLORA_REGISTERS_112
#undef SMLORA_REGISTERS_120
#undef SMLORA_REGISTERS_128
#undef SMLORA_REGISTERS_136
#undef SMLORA_REGISTERS_144
#undef SMLORA_REGISTERS_152
#undef SMLORA_REGISTERS_160

}  // namespace smlora::ptx
