// d += a b on a warpgroup's tensor cores: m64, n a multiple of 8, k16, both operands in shared memory, 16-bit elements,
// fp32 accumulators (sm_90a). Asynchronous: registers and shared memory are the tensor cores' from the instruction
// until wgmma_wait.
#pragma once

#include "types.cuh"

namespace smlora::ptx {

/// Orders accesses of accumulators and shared memory before the wgmmas that follow.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Waits until at most `Pending` of the warpgroup's newest groups are still under way.
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/// Keeps the compiler from moving what it does with `d` across this point.
template <int Count>
__device__ __forceinline__ void wgmma_hold(float (&d)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

/// d += a b, both by wgmma_operand. a is 64 x 16, b is 16 x N; A_STRIDED and B_STRIDED: 1 if that operand's
/// reduction is strided. Thread t of the warpgroup holds of d the rows t / 32 * 16 + t % 32 / 4 (+ 8) and the columns
/// j * 8 + t % 4 * 2 (+ 1): d[j * 4 + (row ? 2 : 0) + (column ? 1 : 0)].
template <class Element, int N, int A_STRIDED, int B_STRIDED>
struct Wgmma;

// The registers of d as the instruction names them, and as operands, for N columns.
#define SMLORA_D8 "%0, %1, %2, %3"
#define SMLORA_O8 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define SMLORA_D16 SMLORA_D8 ", %4, %5, %6, %7"
#define SMLORA_O16 SMLORA_O8, "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define SMLORA_D24 SMLORA_D16 ", %8, %9, %10, %11"
#define SMLORA_O24 SMLORA_O16, "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11])
#define SMLORA_D32 SMLORA_D24 ", %12, %13, %14, %15"
#define SMLORA_O32 SMLORA_O24, "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define SMLORA_D40 SMLORA_D32 ", %16, %17, %18, %19"
#define SMLORA_O40 SMLORA_O32, "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19])
#define SMLORA_D48 SMLORA_D40 ", %20, %21, %22, %23"
#define SMLORA_O48 SMLORA_O40, "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
#define SMLORA_D56 SMLORA_D48 ", %24, %25, %26, %27"
#define SMLORA_O56 SMLORA_O48, "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27])
#define SMLORA_D64 SMLORA_D56 ", %28, %29, %30, %31"
#define SMLORA_O64 SMLORA_O56, "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define SMLORA_D72 SMLORA_D64 ", %32, %33, %34, %35"
#define SMLORA_O72 SMLORA_O64, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
#define SMLORA_D80 SMLORA_D72 ", %36, %37, %38, %39"
#define SMLORA_O80 SMLORA_O72, "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define SMLORA_D88 SMLORA_D80 ", %40, %41, %42, %43"
#define SMLORA_O88 SMLORA_O80, "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43])
#define SMLORA_D96 SMLORA_D88 ", %44, %45, %46, %47"
#define SMLORA_O96 SMLORA_O88, "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define SMLORA_D104 SMLORA_D96 ", %48, %49, %50, %51"
#define SMLORA_O104 SMLORA_O96, "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51])
#define SMLORA_D112 SMLORA_D104 ", %52, %53, %54, %55"
#define SMLORA_O112 SMLORA_O104, "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55])
#define SMLORA_D120 SMLORA_D112 ", %56, %57, %58, %59"
#define SMLORA_O120 SMLORA_O112, "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59])
#define SMLORA_D128 SMLORA_D120 ", %60, %61, %62, %63"
#define SMLORA_O128 SMLORA_O120, "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define SMLORA_D136 SMLORA_D128 ", %64, %65, %66, %67"
#define SMLORA_O136 SMLORA_O128, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
#define SMLORA_D144 SMLORA_D136 ", %68, %69, %70, %71"
#define SMLORA_O144 SMLORA_O136, "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define SMLORA_D152 SMLORA_D144 ", %72, %73, %74, %75"
#define SMLORA_O152 SMLORA_O144, "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75])
#define SMLORA_D160 SMLORA_D152 ", %76, %77, %78, %79"
#define SMLORA_O160 SMLORA_O152, "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79])

// A, B, S, U: numbers of the operands behind d.
#define SMLORA_WGMMA_OF(ELEMENT, TYPE, N, A, B, S, U)                                            \
    template <int A_STRIDED, int B_STRIDED>                                                      \
    struct Wgmma<ELEMENT, N, A_STRIDED, B_STRIDED> {                                             \
        static __device__ __forceinline__ void run(float (&d)[N / 2], uint64 a, uint64 b) {      \
            asm volatile(                                                                        \
                "{\n\t.reg .pred p;\n\tsetp.eq.b32 p, 0, 0;\n\t"                                 \
                "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" SMLORA_D##N \
                "}, %" #A ", %" #B ", p, 1, 1, %" #S ", %" #U ";\n\t}"                           \
                : SMLORA_O##N                                                                    \
                : "l"(a), "l"(b), "n"(A_STRIDED), "n"(B_STRIDED)                                 \
                : "memory");                                                                     \
        }                                                                                        \
    };
#define SMLORA_WGMMA(N, A, B, S, U)              \
    SMLORA_WGMMA_OF(bf16, "bf16", N, A, B, S, U) \
    SMLORA_WGMMA_OF(fp16, "f16", N, A, B, S, U)

SMLORA_WGMMA(8, 4, 5, 6, 7)
SMLORA_WGMMA(16, 8, 9, 10, 11)
SMLORA_WGMMA(24, 12, 13, 14, 15)
SMLORA_WGMMA(32, 16, 17, 18, 19)
SMLORA_WGMMA(40, 20, 21, 22, 23)
SMLORA_WGMMA(48, 24, 25, 26, 27)
SMLORA_WGMMA(56, 28, 29, 30, 31)
SMLORA_WGMMA(64, 32, 33, 34, 35)
SMLORA_WGMMA(72, 36, 37, 38, 39)
SMLORA_WGMMA(80, 40, 41, 42, 43)
SMLORA_WGMMA(88, 44, 45, 46, 47)
SMLORA_WGMMA(96, 48, 49, 50, 51)
SMLORA_WGMMA(104, 52, 53, 54, 55)
SMLORA_WGMMA(112, 56, 57, 58, 59)
SMLORA_WGMMA(120, 60, 61, 62, 63)
SMLORA_WGMMA(128, 64, 65, 66, 67)
SMLORA_WGMMA(136, 68, 69, 70, 71)
SMLORA_WGMMA(144, 72, 73, 74, 75)
SMLORA_WGMMA(152, 76, 77, 78, 79)
SMLORA_WGMMA(160, 80, 81, 82, 83)

#undef SMLORA_WGMMA
#undef SMLORA_WGMMA_OF
#undef SMLORA_D8
#undef SMLORA_O8
#undef SMLORA_D16
#undef SMLORA_O16
#undef SMLORA_D24
#undef SMLORA_O24
#undef SMLORA_D32
#undef SMLORA_O32
#undef SMLORA_D40
#undef SMLORA_O40
#undef SMLORA_D48
#undef SMLORA_O48
#undef SMLORA_D56
#undef SMLORA_O56
#undef SMLORA_D64
#undef SMLORA_O64
#undef SMLORA_D72
#undef SMLORA_O72
#undef SMLORA_D80
#undef SMLORA_O80
#undef SMLORA_D88
#undef SMLORA_O88
#undef SMLORA_D96
#undef SMLORA_O96
#undef SMLORA_D104
#undef SMLORA_O104
#undef SMLORA_D112
#undef SMLORA_O112
#undef SMLORA_D120
#undef SMLORA_O120
#undef SMLORA_D128
#undef SMLORA_O128
#undef SMLORA_D136
#undef SMLORA_O136
#undef SMLORA_D144
#undef SMLORA_O144
#undef SMLORA_D152
#undef SMLORA_O152
#undef SMLORA_D160
#undef SMLORA_O160

}  // namespace smlora::ptx
