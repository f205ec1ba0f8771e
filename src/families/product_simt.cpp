#include "families/product_simt.hpp"

#include "families/product_launch.hpp"

namespace smlora::families {

Step product_simt_step(const ProductWork& work) {
    constexpr int tile = 64;
    Step step;
    auto& spec = step.spec;
    spec.family = "grouped_product_simt";
    spec.threads = 256;
    spec.dynamic_shared = static_cast<unsigned>((work.problem.E + 2 + 8) * 4);
    spec.constants = product_constants(work);
    spec.constants.emplace_back("OUT_WEIGHT", work.product.out_weight);
    spec.constants.emplace_back("RANK", work.product.rank);
    spec.constants.emplace_back("RANK_STRIDE", padded_rank(work.problem));
    step.tile_rows = tile;
    step.column_tiles = static_cast<int>((work.product.out + tile - 1) / tile);
    step.product_launch = portable_launch(work.problem.E);
    return step;
}

}  // namespace smlora::families
