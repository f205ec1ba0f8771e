// One kernel of an operation with what its launch follows from.
#pragma once

#include "gpu/loaded_kernel.hpp"
#include "jit/kernel_spec.hpp"

#include <memory>

namespace smlora::families {

class ProductLaunch;

struct Step {
    jit::KernelSpec spec;
    int tile_rows = 0;                                         ///< rows of a tile, or rows that a block takes at once
    int column_tiles = 0;                                      ///< tiles beside each other for one row tile
    bool takes_items = false;                                  ///< of the gradients: see LoraGradientPair::taken
    std::shared_ptr<const ProductLaunch> product_launch = {};  ///< of a grouped product: how its family launches it
    const gpu::LoadedKernel* kernel = nullptr;                 ///< set when the plan is loaded
};

}  // namespace smlora::families
