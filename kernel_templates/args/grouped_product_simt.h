// Tile and shared memory of grouped_product_simt, for the host and the kernel.
#pragma once

namespace smlora::grouped_product_simt {

constexpr int tile = 64;  ///< rows, and outputs, of a block
constexpr int block_threads = 256;

/// Dynamic shared memory; where everything begins, in bytes.
struct SharedMemory {
    int prefix;       ///< (E + 2) x 4: row tiles before each expert; group E is the entries left out
    int warp_totals;  ///< WARPS x 4
    int bytes;        ///< in all
};

constexpr SharedMemory shared_memory(int E) {
    SharedMemory memory{};
    memory.warp_totals = memory.prefix + (E + 2) * 4;
    memory.bytes = memory.warp_totals + block_threads / 32 * 4;
    return memory;
}

}  // namespace smlora::grouped_product_simt
