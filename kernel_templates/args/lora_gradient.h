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
    void* partials;  ///< fp32, RANK x WIDE sums for each chunk of an expert with several chunks
    int by_span;     ///< lora_gradient_items.cuh: one span of columns for all experts, then the next
    int uncut_rows;  ///< an expert with more rows is cut into chunks of at most half as many
    int M;
};

/// Both gradients in one launch: dA (wide = x) and dB (wide = dy), over the same rows.
struct LoraGradientPair {
    LoraGradientArgs a;
    LoraGradientArgs b;
    int* taken;  ///< lora_gradient_wgmma: items taken besides each block's first, 0 before; null: dealt in turn
};

}  // namespace smlora
