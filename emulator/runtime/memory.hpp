// Device memory: host memory that is watched.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace smlora::emulator {

/// Every allocation begins at a multiple of 256, is poisoned, and lies between guards that nobody may write to.
class DeviceMemory {
 public:
    ~DeviceMemory();

    [[nodiscard]] void* allocate(std::size_t bytes);
    /// False if no allocation begins there.
    bool free(void* address);

    /// Whether these bytes are within one allocation.
    [[nodiscard]] bool holds(std::uintptr_t address, std::size_t bytes) const {
        for (const Range& range : recent_) {
            if (address - range.begin < range.bytes && range.begin + range.bytes - address >= bytes) return true;
        }
        return find(address, bytes);
    }
    /// The allocation around or next to an address, in words.
    [[nodiscard]] std::string describe(std::uintptr_t address) const;

    /// What was written to guards, of allocations that are and of those that were freed since the last question.
    [[nodiscard]] std::optional<std::string> overwritten_guards();

    [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
    static constexpr std::size_t guard_bytes = 256;
    struct Range {
        std::uintptr_t begin = 0;
        std::size_t bytes = 0;
    };

    bool find(std::uintptr_t address, std::size_t bytes) const;
    void check_guards(std::uintptr_t address, std::size_t bytes);

    std::map<std::uintptr_t, std::size_t> allocations_;
    std::size_t bytes_ = 0;
    std::optional<std::string> damage_;
    mutable std::array<Range, 4> recent_{};  ///< allocations that were found last
    mutable unsigned next_recent_ = 0;
};

}  // namespace smlora::emulator
