// Tile of lora_gradient_simt, for the host and the kernel.
#pragma once

#include "args/integers.h"

namespace smlora::lora_gradient_simt {

constexpr int tile_c = 64;  ///< columns of the wide operand
constexpr int tile_r = 16;  ///< ranks
constexpr int block_threads = 256;

/// Blocks beside each other for one expert.
constexpr int tiles(int wide, int rank) { return ceil_div(wide, tile_c) * ceil_div(rank, tile_r); }

}  // namespace smlora::lora_gradient_simt
