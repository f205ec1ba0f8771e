// Arguments of the grouped product on wgmma, shared by the host and the kernel.
#pragma once

#include "args/grouped_product.h"
#include "args/tensor_map.h"

namespace smlora {

/// Boxes and swizzles of the maps: grouped_product_wgmma/layout.cuh.
struct GroupedProductWgmmaArgs {
    TensorMap weight_map;        ///< [E, RED, OUT] or [E, OUT, RED], the last contiguous
    TensorMap lora_weight_map;   ///< [E, RANK, OUT] or [E, OUT, RANK]; RANK > 0
    TensorMap lora_rows_map;     ///< [1, M, RANK] of product.lora_rows; RANK > 0
    TensorMap rank_map;          ///< [E, RED, RANK] or [E, RANK, RED]: makes the rank rows; MAKES_RANK_ROWS
    GroupedProductArgs product;  ///< its scale is 1
    void* rank_rows;             ///< [M, RANK], written: rank_scale (row(i) rank_matrix_e); MAKES_RANK_ROWS
    float rank_scale;
    int experts_ahead;  ///< MAKES_RANK_ROWS: so many experts have their first column tiles before the others of as many
                        ///< experts before them; > 0
    unsigned* progress;  ///< zeros: items taken, then a flag for each row tile, set when its rank rows are written
};

}  // namespace smlora
