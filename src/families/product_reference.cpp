#include "families/product_reference.hpp"

#include "families/product_launch.hpp"

namespace smlora::families {

Step product_reference_step(const ProductWork& work) {
    // Any grid will do: about as many blocks as tiles of this size.
    constexpr int tile = 64;
    Step step;
    step.spec.family = "grouped_product_reference";
    step.spec.threads = 256;
    step.spec.constants = product_constants(work);
    step.spec.constants.emplace_back("RANK", rank_columns(work));
    step.tile_rows = tile;
    step.column_tiles = static_cast<int>((work.product.out + tile - 1) / tile);
    step.product_launch = portable_launch(work.problem.E);
    return step;
}

}  // namespace smlora::families
