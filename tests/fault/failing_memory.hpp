// Allocations that fail when a test says so.
#pragma once

#include <cstddef>

namespace smlora::testing {

/// Which allocations fail. Small ones never do: the JSON library ends the process when it has no memory to destroy a
/// value, and so does much else.
struct Memory {
    static constexpr std::size_t small_bytes = 1 << 16;

    long left = -1;        ///< how many that are not small succeed before one fails; negative: all do
    bool lasting = false;  ///< all behind that one fail, too
};

/// Of this thread, by which `operator new` of this program goes.
extern thread_local Memory memory;

}  // namespace smlora::testing
