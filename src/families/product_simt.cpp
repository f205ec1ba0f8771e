#include "families/product_simt.hpp"

#include "args/grouped_product_simt.h"
#include "families/product_launch.hpp"

namespace smlora::families {

Step product_simt_step(const ProductWork& work) {
    using grouped_product_simt::tile;
    Step step;
    auto& spec = step.spec;
    spec.family = "grouped_product_simt";
    spec.threads = grouped_product_simt::block_threads;
    spec.dynamic_shared =
        static_cast<unsigned>(grouped_product_simt::shared_memory(static_cast<int>(launched_experts(work))).bytes);
    spec.constants = product_constants(work);
    spec.constants.emplace_back("OUT_WEIGHT", work.product.out_weight);
    spec.constants.emplace_back("RANK", work.product.rank);
    spec.constants.emplace_back("RANK_STRIDE", padded_rank(work.problem));
    step.tile_rows = tile;
    step.column_tiles = static_cast<int>((work.product.out + tile - 1) / tile);
    step.product_launch = portable_launch(launched_experts(work));
    return step;
}

}  // namespace smlora::families
