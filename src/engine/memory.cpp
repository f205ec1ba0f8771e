// Buffer and synchronize.
#include <smlora/error.hpp>
#include <smlora/memory.hpp>

#include "engine/engine_impl.hpp"
#include "gpu/driver.hpp"

#include <fmt/format.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

namespace smlora {
namespace {

constexpr std::align_val_t host_alignment{256};

/// Makes a context current for a scope.
class ContextScope {
 public:
    explicit ContextScope(void* context) { SMLORA_CUDA(cuCtxPushCurrent, static_cast<CUcontext>(context)); }
    ~ContextScope() {
        CUcontext popped = nullptr;
        gpu::driver().cuCtxPopCurrent(&popped);
    }
    ContextScope(const ContextScope&) = delete;
    ContextScope& operator=(const ContextScope&) = delete;
};

CUdeviceptr device_pointer(void* data, std::size_t offset) { return reinterpret_cast<CUdeviceptr>(data) + offset; }

void check_copy(const char* argument, const void* host, std::size_t size, std::size_t bytes, std::size_t offset) {
    if (bytes > 0 && host == nullptr) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("{}: expected memory for {} bytes, got a null pointer", argument, bytes));
    }
    if (offset > size || bytes > size - offset) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("bytes: expected at most {} from offset {} of a buffer of {} bytes, got {}",
                                offset > size ? 0 : size - offset, offset, size, bytes));
    }
}

}  // namespace

Buffer::Buffer(const Engine& engine, std::size_t bytes) : bytes_(bytes), backend_(engine.backend()) {
    if (bytes == 0) return;
    if (backend_ == Backend::cpu) {
        // What is rounded up to the alignment must not pass the end of the numbers.
        if (bytes > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max())) throw std::bad_alloc();
        data_ = ::operator new(bytes, host_alignment);
        return;
    }
    const gpu::CurrentContext context(engine.impl().contexts, engine.impl().options.device);
    CUdeviceptr pointer = 0;
    SMLORA_CUDA(cuMemAlloc, &pointer, bytes);
    data_ = reinterpret_cast<void*>(pointer);
    context_ = context.handle();
}

Buffer::~Buffer() { release(); }

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      backend_(other.backend_),
      context_(other.context_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    if (this != &other) {
        release();
        data_ = std::exchange(other.data_, nullptr);
        bytes_ = std::exchange(other.bytes_, 0);
        backend_ = other.backend_;
        context_ = other.context_;
    }
    return *this;
}

void Buffer::release() noexcept {
    if (data_ == nullptr) return;
    if (backend_ == Backend::cpu) {
        ::operator delete(data_, host_alignment);
    } else if (gpu::driver().cuCtxPushCurrent(static_cast<CUcontext>(context_)) == CUDA_SUCCESS) {
        // A context that is gone has taken the memory with it.
        gpu::driver().cuMemFree(device_pointer(data_, 0));
        CUcontext popped = nullptr;
        gpu::driver().cuCtxPopCurrent(&popped);
    }
    data_ = nullptr;
}

void Buffer::copy_from_host(const void* source, std::size_t bytes, std::size_t offset) {
    check_copy("source", source, bytes_, bytes, offset);
    if (bytes == 0) return;
    if (backend_ == Backend::cpu) {
        std::memcpy(static_cast<char*>(data_) + offset, source, bytes);
        return;
    }
    const ContextScope scope(context_);
    SMLORA_CUDA(cuMemcpyHtoD, device_pointer(data_, offset), source, bytes);
}

void Buffer::copy_to_host(void* target, std::size_t bytes, std::size_t offset) const {
    check_copy("target", target, bytes_, bytes, offset);
    if (bytes == 0) return;
    if (backend_ == Backend::cpu) {
        std::memcpy(target, static_cast<const char*>(data_) + offset, bytes);
        return;
    }
    const ContextScope scope(context_);
    // A copy on the legacy stream does not wait for streams made as non-blocking.
    SMLORA_CUDA(cuCtxSynchronize);
    SMLORA_CUDA(cuMemcpyDtoH, target, device_pointer(data_, offset), bytes);
}

void Buffer::fill(unsigned char value) {
    if (bytes_ == 0) return;
    if (backend_ == Backend::cpu) {
        std::memset(data_, value, bytes_);
        return;
    }
    const ContextScope scope(context_);
    SMLORA_CUDA(cuMemsetD8, device_pointer(data_, 0), value, bytes_);
    SMLORA_CUDA(cuCtxSynchronize);
}

void synchronize(const Engine& engine, Stream stream) {
    if (engine.backend() == Backend::cpu) return;
    const gpu::CurrentContext context(engine.impl().contexts, engine.impl().options.device);
    SMLORA_CUDA(cuStreamSynchronize, static_cast<CUstream>(stream.handle));
}

}  // namespace smlora
