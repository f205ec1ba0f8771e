#include "runtime/memory.hpp"

#include "runtime/poison.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <new>
#include <utility>

namespace smlora::emulator {
namespace {

void* pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

/// With its upper guard, which also fills up the last 256 bytes.
std::size_t padded(std::size_t bytes, std::size_t guard) { return (bytes + guard - 1) / guard * guard + guard; }

}  // namespace

DeviceMemory::~DeviceMemory() {
    for (const auto& [address, bytes] : allocations_) std::free(pointer(address - guard_bytes));
}

void* DeviceMemory::allocate(std::size_t bytes) {
    const std::size_t whole = guard_bytes + padded(bytes, guard_bytes);
    void* memory = std::aligned_alloc(guard_bytes, whole);
    if (memory == nullptr) throw std::bad_alloc();
    poison(memory, whole);
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory) + guard_bytes;
    allocations_[address] = bytes;
    bytes_ += bytes;
    return pointer(address);
}

bool DeviceMemory::free(void* address) {
    const auto found = allocations_.find(reinterpret_cast<std::uintptr_t>(address));
    if (found == allocations_.end()) return false;
    check_guards(found->first, found->second);
    bytes_ -= found->second;
    recent_ = {};
    std::free(pointer(found->first - guard_bytes));
    allocations_.erase(found);
    return true;
}

bool DeviceMemory::find(std::uintptr_t address, std::size_t bytes) const {
    auto after = allocations_.upper_bound(address);
    if (after == allocations_.begin()) return false;
    const auto& [begin, size] = *--after;
    if (address - begin >= size || size - (address - begin) < bytes) return false;
    recent_[next_recent_++ % recent_.size()] = {begin, size};
    return true;
}

std::string DeviceMemory::describe(std::uintptr_t address) const {
    auto after = allocations_.upper_bound(address);
    if (after == allocations_.begin()) return "below all device memory";
    const auto& [begin, size] = *--after;
    return address - begin < size
               ? fmt::format("byte {} of the {} at {:#x}", address - begin, size, begin)
               : fmt::format("{} bytes past the end of the {} at {:#x}", address - begin - size, size, begin);
}

void DeviceMemory::check_guards(std::uintptr_t address, std::size_t bytes) {
    const std::size_t upper = padded(bytes, guard_bytes) - bytes;
    const std::size_t below = first_written(pointer(address - guard_bytes), guard_bytes);
    const std::size_t above = first_written(pointer(address + bytes), upper);
    if (below == guard_bytes && above == upper) return;
    // Reported once.
    poison(pointer(address - guard_bytes), guard_bytes);
    poison(pointer(address + bytes), upper);
    if (below < guard_bytes) {
        damage_ = fmt::format("{} bytes before the {} at {:#x} were written to", guard_bytes - below, bytes, address);
    } else {
        damage_ = fmt::format("{} bytes past the end of the {} at {:#x} were written to", above, bytes, address);
    }
}

std::optional<std::string> DeviceMemory::overwritten_guards() {
    for (const auto& [address, bytes] : allocations_) check_guards(address, bytes);
    return std::exchange(damage_, std::nullopt);
}

}  // namespace smlora::emulator
