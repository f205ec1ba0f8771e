// The shared memory of one block.
#pragma once

#include "device/runtime.hpp"
#include "runtime/mbarrier.hpp"

#include <array>
#include <map>
#include <optional>

namespace smlora::emulator {

/// Where a kernel's shared variables lie; the same in all its blocks.
struct SharedLayout {
    struct Variable {
        unsigned offset;
        unsigned bytes;
    };
    unsigned dynamic_offset = 0;  ///< 0: not known before a thread asks, with its alignment
    unsigned dynamic_alignment = 0;
    std::map<const void*, Variable> variables;  ///< static ones, in the order in which a thread first came to them
    unsigned variable_bytes = 0;
    unsigned static_bytes = 0;  ///< with gaps
};

/// A window of 256 KiB, as far as matrix descriptors reach: dynamic memory from below, static variables from above.
class SharedMemory {
 public:
    static constexpr unsigned window_bytes = shared_window_bytes;

    SharedMemory();
    ~SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    /// A new block: every byte is poisoned.
    void begin(SharedLayout& layout, unsigned dynamic_bytes);

    /// The dynamic memory, aligned to `alignment` and to no more than that; null if the block has none, or if it was
    /// asked for with another alignment before.
    [[nodiscard]] void* dynamic(unsigned alignment);
    /// A static variable; null if there is no room.
    [[nodiscard]] void* variable(const void* key, unsigned bytes, unsigned alignment);

    [[nodiscard]] char* window() const { return window_; }
    [[nodiscard]] unsigned dynamic_bytes() const { return dynamic_bytes_; }
    /// The offset in the window, if the pointer is into it.
    [[nodiscard]] std::optional<unsigned> offset_of(const void* pointer) const;
    /// Whether these bytes belong to the dynamic memory or to one variable.
    [[nodiscard]] bool holds(unsigned offset, unsigned bytes) const;
    /// A bit for each byte: whether it belongs to any.
    [[nodiscard]] const unsigned char* usable() const { return usable_.data(); }
    [[nodiscard]] SharedStore* stores() { return stores_.data(); }
    [[nodiscard]] Mbarriers& mbarriers() { return mbarriers_; }

 private:
    void allow(unsigned offset, unsigned bytes);

    char* window_;
    std::array<unsigned char, window_bytes / 8 + 4> usable_{};  ///< may be read four bytes at a time
    std::array<SharedStore, window_bytes / 16> stores_{};
    Mbarriers mbarriers_;
    SharedLayout* layout_ = nullptr;
    unsigned dynamic_bytes_ = 0;
};

}  // namespace smlora::emulator
