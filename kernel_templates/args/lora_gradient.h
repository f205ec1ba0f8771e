// Arguments of the adapter's gradients, shared by the host and the kernels.
#pragma once

namespace smlora {

/// out(e, c, r) = sum over the sorted rows i of expert e of g_i rank_rows[i, r] wide_row(i)[c], exactly zero for an
/// expert without rows. dA: wide = x, rank_rows = yb; dB: wide = dy, rank_rows = xa. Strides count elements.
struct LoraGradientArgs {
    const void* wide;  ///< WIDE columns, in the order ROWS
    long long wide_stride;
    const void* rank_rows;       ///< [M, RANK] grouped, row stride RANK_STRIDE
    const void* gates;           ///< [M] by flat entry, the factor g; HAS_GATES
    const void* scattered_idxs;  ///< [M]
    const void* expert_offsets;  ///< [E]
    void* out;                   ///< of type Output
    long long out_expert_stride;
    long long out_wide_stride;
    long long out_rank_stride;
    void* partials;  ///< fp32, one RANK x WIDE slot for each chunk of an expert with several chunks
    int chunk_rows;  ///< rows that one block sums; an expert with more has several chunks
    int M;
};

/// Both gradients in one launch: dA (wide = x) and dB (wide = dy), over the same rows.
struct LoraGradientPair {
    LoraGradientArgs a;
    LoraGradientArgs b;
};

}  // namespace smlora
