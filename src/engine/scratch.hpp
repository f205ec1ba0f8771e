// Scratch memory of an operation: laid out first, then taken from the caller or from the stream-ordered pool.
#pragma once

#include "gpu/pool.hpp"

#include <smlora/operations.hpp>

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace smlora::engine {

/// A block of memory for the length of one call, cut into pieces that are aligned to 256 bytes.
class Scratch {
 public:
    /// A part of the block; by default none.
    class Piece {
     public:
        Piece() = default;

     private:
        friend class Scratch;
        explicit Piece(std::size_t offset) : offset_(offset) {}
        std::optional<std::size_t> offset_;
    };

    /// Adds a piece, before allocate().
    [[nodiscard]] Piece reserve(std::int64_t bytes);

    /// Bytes of all pieces.
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

    /// Throws Error{invalid_argument} when the caller's workspace is too small or misaligned.
    void allocate(const Workspace& workspace, CUstream stream);

    /// Where a piece lies, after allocate(); null for none.
    [[nodiscard]] void* at(Piece piece) const noexcept;

 private:
    std::size_t bytes_ = 0;
    std::optional<gpu::StreamBuffer> pool_;
    char* base_ = nullptr;
};

}  // namespace smlora::engine
