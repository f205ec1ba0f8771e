// Arguments of the grouped product, shared by the host and the kernels.
#pragma once

namespace smlora {

/// out_row(i) = g (scale (row(i) weight_e) + lora_rows(i) lora_weight_e) + bias_e for every sorted position i of
/// expert e; zero rows for positions at and after expert_offsets[E - 1]. Strides count elements.
///
/// With SLICE, for a slice of E of the experts: what has an expert dimension begins with the first of them, and in the
/// place of expert_offsets is what unpack_weights makes of it.
struct GroupedProductArgs {
    const void* rows;  ///< left operand, RED columns, in the order ROWS
    long long rows_stride;
    const void* weight;  ///< per expert [OUT, RED] (RED contiguous) or [RED, OUT] (OUT contiguous)
    long long weight_expert_stride;
    long long weight_row_stride;
    const void* lora_rows;    ///< [M, RANK] grouped, row stride RANK; RANK > 0
    const void* lora_weight;  ///< per expert [OUT, RANK] or [RANK, OUT]
    long long lora_expert_stride;
    long long lora_row_stride;
    const void* bias;            ///< [E, OUT]; HAS_BIAS
    const void* gates;           ///< [M] by flat entry, the factor g; HAS_GATES
    const void* scattered_idxs;  ///< [M]
    const void* expert_offsets;  ///< [E]; SLICE: [E + 2], see UnpackWeightsArgs::slice
    void* out;                   ///< OUT columns, in the order OUT_ROWS (scattered or grouped)
    long long out_stride;
    float scale;
    int M;
};

}  // namespace smlora
