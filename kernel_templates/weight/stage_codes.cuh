// The codes of a stage that one thread of grouped_product_packed takes, and which weights they are.
//
// A thread's fragments come out of ldmatrix without moving bits between threads, for a price: rows, or columns of the
// output, in an order of their own. Codes come in `parts` of a step, two of which are held; fragment j
// of eight needs part j * parts / 8 alone.
#pragma once

#include "ptx/ldmatrix.cuh"
#include "swizzle.cuh"
#include "types.cuh"

namespace smlora::weight {

/// BITS of a code; MAJOR 0: the reduction is contiguous; of warpgroup `half` of a tile of COLUMNS.
template <int BITS, int MAJOR, int COLUMNS, int DEPTH>
struct StageCodes;

/// In each 32 of the reduction, slot 16 s + 8 h + 2 q + j of a fragment has element 8 q + 2 s + h + 4 j. The rows that
/// are multiplied with it have the same order: permute_rows.cuh.
template <int COLUMNS, int DEPTH>
struct StageCodes<4, 0, COLUMNS, DEPTH> {
    static constexpr int parts = 2;
    unsigned offset;
    uint32 words[2][4];

    __device__ __forceinline__ StageCodes(int half, int warp, int lane)
        : offset(swizzled<2>(half * 128 + warp * 16 + lane % 16, lane / 16)) {}

    template <int PART>
    __device__ __forceinline__ void load(unsigned stage) {
        ptx::ldmatrix_x4(words[PART], stage + offset + PART * 64 * DEPTH / 2);
    }

    /// The word with values of m64 `m`, rows `h` x 8, k16 step `k`, k8 `k8`, and the first of its two codes there.
    __device__ __forceinline__ uint32 word(int m, int h, int k, int /*k8*/) const { return words[m][k / 2 * 2 + h]; }
    static __device__ __forceinline__ int code(int /*m*/, int /*h*/, int k, int k8) { return k % 2 * 2 + k8; }
};

/// Row 16 w + 8 h + r of m64 `m` is column 32 w + 4 r + 2 m + h of the warpgroup's 128.
template <int COLUMNS, int DEPTH>
struct StageCodes<4, 1, COLUMNS, DEPTH> {
    static constexpr int parts = 2;
    unsigned offset;
    uint32 words[2][4];

    __device__ __forceinline__ StageCodes(int half, int warp, int lane) : offset(swizzled<8>(lane, half * 4 + warp)) {}

    template <int PART>
    __device__ __forceinline__ void load(unsigned stage) {
        ptx::ldmatrix_x4_trans(words[PART], stage + offset + PART * 32 * COLUMNS / 2);
    }

    __device__ __forceinline__ uint32 word(int /*m*/, int /*h*/, int k, int k8) const {
        return words[k / 2][k % 2 * 2 + k8];
    }
    static __device__ __forceinline__ int code(int m, int h, int /*k*/, int /*k8*/) { return 2 * m + h; }
    static constexpr __device__ __forceinline__ int column(int warp, int row, int m) {
        return warp * 32 + row * 4 + m * 2;
    }
};

/// In each 16 of the reduction, slot 8 h + 2 q + j of a fragment has element 4 q + h + 2 j, and so have the rows.
template <int COLUMNS, int DEPTH>
struct StageCodes<8, 0, COLUMNS, DEPTH> {
    static constexpr int parts = 4;
    unsigned chunks[2];  ///< of the two k32 steps
    uint32 words[2][4];

    __device__ __forceinline__ StageCodes(int half, int warp, int lane) {
        const int of_tile = half * 128 + warp * 16 + lane % 16;
        chunks[0] = swizzled<4>(of_tile, lane / 16);
        chunks[1] = swizzled<4>(of_tile, lane / 16 + 2);
    }

    template <int PART>
    __device__ __forceinline__ void load(unsigned stage) {
        ptx::ldmatrix_x4(words[PART % 2], stage + chunks[PART % 2] + PART / 2 * 64 * DEPTH);
    }

    __device__ __forceinline__ uint32 word(int /*m*/, int h, int k, int /*k8*/) const {
        return words[k / 2][k % 2 * 2 + h];
    }
    static __device__ __forceinline__ int code(int /*m*/, int /*h*/, int /*k*/, int k8) { return k8; }
};

/// Row 16 w + 8 h + r of m64 `m` is column 32 w + 16 m + 2 r + h of the warpgroup's 128.
template <int COLUMNS, int DEPTH>
struct StageCodes<8, 1, COLUMNS, DEPTH> {
    static constexpr int parts = 4;
    unsigned offset;
    uint32 words[2][4];

    __device__ __forceinline__ StageCodes(int half, int warp, int lane)
        : offset(static_cast<unsigned>(half * 128 * DEPTH) + swizzled<8>(lane % 16, warp * 2 + lane / 16)) {}

    template <int PART>
    __device__ __forceinline__ void load(unsigned stage) {
        ptx::ldmatrix_x4_trans(words[PART % 2], stage + offset + PART * 16 * 128);
    }

    __device__ __forceinline__ uint32 word(int m, int /*h*/, int k, int k8) const { return words[k % 2][m * 2 + k8]; }
    static __device__ __forceinline__ int code(int /*m*/, int h, int /*k*/, int /*k8*/) { return h; }
    static constexpr __device__ __forceinline__ int column(int warp, int row, int m) {
        return warp * 32 + m * 16 + row * 2;
    }
};

}  // namespace smlora::weight
