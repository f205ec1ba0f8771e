// What cuTensorMapEncodeTiled writes and a bulk tensor copy reads: 128 bytes.
#pragma once

#include <array>
#include <cstdint>

namespace smlora::emulator {

constexpr unsigned most_dimensions = 5;

/// Dimensions from the fastest on.
struct TensorMap {
    static constexpr std::uint32_t valid_mark = 0x54a94a9U;

    std::uint32_t mark = 0;  ///< valid_mark
    std::uint8_t dimensions = 0;
    std::uint8_t element_bytes = 0;
    std::uint8_t swizzle_bytes = 0;  ///< 32, 64, 128; 0: none
    std::uint8_t fill_with_nan = 0;
    std::uint64_t address = 0;
    std::array<std::uint64_t, most_dimensions> sizes{};
    std::array<std::uint64_t, most_dimensions - 1> strides{};  ///< bytes, from the second dimension on
    std::array<std::uint16_t, most_dimensions> box{};
};
static_assert(sizeof(TensorMap) <= 128);

/// Where a 16-byte chunk at `address` of shared memory goes under a swizzle of `bytes`: the chunk's number in its row
/// of `bytes` is xor-ed with the number of the 128-byte line, as far as both have bits. CUDA programming guide, "Shared
/// memory bank swizzling".
[[nodiscard]] inline unsigned swizzled(unsigned address, unsigned bytes) {
    return bytes == 0 ? address : address ^ ((address >> 3) & (bytes - 16));
}

}  // namespace smlora::emulator
