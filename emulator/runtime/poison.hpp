// What memory holds that nobody has written: NaN in every floating-point type, -1 in every integer.
#pragma once

#include <cstddef>
#include <cstring>

namespace smlora::emulator {

constexpr unsigned char poison_byte = 0xff;

inline void poison(void* memory, std::size_t bytes) { std::memset(memory, poison_byte, bytes); }

/// The index of the first byte that is not poison; `bytes` if all are.
inline std::size_t first_written(const void* memory, std::size_t bytes) {
    const auto* const begin = static_cast<const unsigned char*>(memory);
    std::size_t i = 0;
    while (i < bytes && begin[i] == poison_byte) ++i;
    return i;
}

}  // namespace smlora::emulator
