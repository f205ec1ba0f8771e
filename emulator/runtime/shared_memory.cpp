#include "runtime/shared_memory.hpp"

#include "runtime/poison.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace smlora::emulator {
namespace {

// The system's part of each block's memory, below everything else.
constexpr unsigned reserved_bytes = 1024;

// Between two variables, so that what runs past one is not in the next.
constexpr unsigned gap_bytes = 64;

unsigned round_up(unsigned value, unsigned alignment) { return (value + alignment - 1) / alignment * alignment; }

}  // namespace

SharedMemory::SharedMemory() {
    // Aligned to its size: the alignment of a pointer is that of its offset.
    void* memory = std::aligned_alloc(window_bytes, window_bytes);
    if (memory == nullptr) throw std::bad_alloc();
    window_ = static_cast<char*>(memory);
}

SharedMemory::~SharedMemory() { std::free(window_); }

void SharedMemory::begin(SharedLayout& layout, unsigned dynamic_bytes) {
    layout_ = &layout;
    dynamic_bytes_ = dynamic_bytes;
    // Wherever the dynamic memory is going to begin.
    poison(window_, std::min(window_bytes, 4 * reserved_bytes + dynamic_bytes));
    poison(window_ + window_bytes - layout.static_bytes, layout.static_bytes);
    usable_.fill(0);
    stores_.fill({});
    mbarriers_.clear();
    if (layout.dynamic_offset != 0) allow(layout.dynamic_offset, dynamic_bytes);
    for (const auto& [key, variable] : layout.variables) allow(variable.offset, variable.bytes);
}

void SharedMemory::allow(unsigned offset, unsigned bytes) {
    for (unsigned i = offset; i < offset + bytes; ++i) usable_[i / 8] |= static_cast<unsigned char>(1U << i % 8);
}

void* SharedMemory::dynamic(unsigned alignment) {
    if (dynamic_bytes_ == 0) return nullptr;
    if (layout_->dynamic_offset == 0) {
        unsigned offset = round_up(reserved_bytes, alignment);
        if (offset % (2 * alignment) == 0) offset += alignment;
        layout_->dynamic_offset = offset;
        layout_->dynamic_alignment = alignment;
        allow(offset, dynamic_bytes_);
    }
    return layout_->dynamic_alignment == alignment ? window_ + layout_->dynamic_offset : nullptr;
}

void* SharedMemory::variable(const void* key, unsigned bytes, unsigned alignment) {
    auto found = layout_->variables.find(key);
    if (found == layout_->variables.end()) {
        const unsigned used = round_up(layout_->static_bytes + gap_bytes + bytes, std::max(alignment, 16U));
        if (used + dynamic_bytes_ + 4 * reserved_bytes > window_bytes) return nullptr;
        found = layout_->variables.emplace(key, SharedLayout::Variable{window_bytes - used, bytes}).first;
        layout_->static_bytes = used;
        layout_->variable_bytes += bytes;
        poison(window_ + window_bytes - used, bytes);
        allow(window_bytes - used, bytes);
    }
    return window_ + found->second.offset;
}

std::optional<unsigned> SharedMemory::offset_of(const void* pointer) const {
    const auto offset = static_cast<std::size_t>(static_cast<const char*>(pointer) - window_);
    return offset < window_bytes ? std::optional(static_cast<unsigned>(offset)) : std::nullopt;
}

bool SharedMemory::holds(unsigned offset, unsigned bytes) const {
    const auto within = [&](unsigned begin, unsigned size) {
        return offset >= begin && bytes <= size && offset - begin <= size - bytes;
    };
    if (layout_->dynamic_offset != 0 && within(layout_->dynamic_offset, dynamic_bytes_)) return true;
    return std::any_of(layout_->variables.begin(), layout_->variables.end(),
                       [&](const auto& variable) { return within(variable.second.offset, variable.second.bytes); });
}

}  // namespace smlora::emulator
