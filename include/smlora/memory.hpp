// Memory for callers without an allocator of their own: tools, tests, examples, ctypes.
#pragma once

#include <smlora/engine.hpp>

#include <cstddef>

namespace smlora {

/// Owns device memory (CUDA backend) or 256-byte-aligned host memory (CPU backend). Not initialised.
class SMLORA_API Buffer {
 public:
    Buffer() = default;  ///< Owns nothing.
    /// Throws Error{cuda} or std::bad_alloc. Zero bytes give a null pointer.
    Buffer(const Engine& engine, std::size_t bytes);
    ~Buffer();                                   ///< Work that uses the memory must be done.
    Buffer(Buffer&& other) noexcept;             ///< The other then owns nothing.
    Buffer& operator=(Buffer&& other) noexcept;  ///< The other then owns nothing.

    /// Device or host memory, as the engine's backend says; null if it owns nothing.
    [[nodiscard]] void* data() const noexcept { return data_; }
    /// As it was asked for.
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

    /// Blocking; the range must lie within the buffer, else Error{invalid_argument}.
    void copy_from_host(const void* source, std::size_t bytes, std::size_t offset = 0);
    /// Blocking; the range must lie within the buffer, else Error{invalid_argument}.
    void copy_to_host(void* target, std::size_t bytes, std::size_t offset = 0) const;
    /// Blocking; sets every byte.
    void fill(unsigned char value);

 private:
    void release() noexcept;
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
    Backend backend_ = Backend::cpu;
    void* context_ = nullptr;  // the CUcontext that owns data_
};

/// Waits until everything enqueued on the stream is done. Throws Error{cuda} if a kernel failed.
SMLORA_API void synchronize(const Engine& engine, Stream stream);

}  // namespace smlora
