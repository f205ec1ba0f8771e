// Workspace in stream order.
#pragma once

#include <cuda.h>

#include <cstddef>

namespace smlora::gpu {

/// Device memory for work on one stream: there for everything that is put on the stream after the constructor, given
/// back to the pool once everything that was put there before the destructor is done. Neither waits. In a capture both
/// become nodes of the graph.
///
/// The pool is the library's own, one a device for the life of the process: what a step has freed, the next step takes
/// without asking the system. (The device's default pool would give it back whenever the host synchronises, and to
/// change that would change it for the whole process.)
class StreamBuffer {
 public:
    /// On the current context's device, aligned to 256 bytes. 0 bytes: nothing is allocated and data() is null. Throws
    /// Error{cuda} that says how much was asked for.
    StreamBuffer(CUstream stream, std::size_t bytes);
    ~StreamBuffer();
    StreamBuffer(const StreamBuffer&) = delete;
    StreamBuffer& operator=(const StreamBuffer&) = delete;

    [[nodiscard]] void* data() const noexcept;
    [[nodiscard]] CUdeviceptr address() const noexcept { return address_; }
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
    CUstream stream_;
    CUdeviceptr address_ = 0;
    std::size_t bytes_;
};

/// Gives the unused memory of the current device's pool back to the system: after work that needed much more than a
/// step does.
void trim_pool();

}  // namespace smlora::gpu
