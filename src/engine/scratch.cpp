#include "engine/scratch.hpp"

#include "check/validate.hpp"

namespace smlora::engine {

Scratch::Piece Scratch::reserve(std::int64_t bytes) {
    const Piece piece(bytes_);
    bytes_ += (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
    return piece;
}

void Scratch::allocate(const Workspace& workspace, CUstream stream) {
    if (workspace.data != nullptr) {
        check::check_workspace(workspace, bytes_);
        base_ = static_cast<char*>(workspace.data);
    } else if (bytes_ > 0) {
        base_ = static_cast<char*>(pool_.emplace(stream, bytes_).data());
    }
}

void* Scratch::at(Piece piece) const noexcept { return piece.offset_ ? base_ + *piece.offset_ : nullptr; }

}  // namespace smlora::engine
