// Scratch memory of an operation: measured first, then taken from the caller or from the stream-ordered pool.
#pragma once

#include "gpu/pool.hpp"

#include <smlora/operations.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace smlora::engine {

/// Hands out 256-byte-aligned pieces of a block; made without a block it only measures.
class Scratch {
 public:
    Scratch() = default;
    explicit Scratch(void* base) : base_(static_cast<char*>(base)) {}

    void* take(std::int64_t bytes) {
        const std::size_t offset = used_;
        used_ += (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
        return base_ == nullptr ? nullptr : base_ + offset;
    }
    [[nodiscard]] std::size_t used() const noexcept { return used_; }

 private:
    char* base_ = nullptr;
    std::size_t used_ = 0;
};

/// The block behind a Scratch for the length of one call.
class ScratchBlock {
 public:
    /// Throws Error{invalid_argument} when the caller's workspace is too small or misaligned.
    ScratchBlock(const Workspace& workspace, std::size_t needed, CUstream stream);
    [[nodiscard]] void* data() const noexcept { return data_; }

 private:
    std::optional<gpu::StreamBuffer> pool_;
    void* data_ = nullptr;
};

}  // namespace smlora::engine
