// GPUs and the context that an operation runs in.
#pragma once

#include "gpu/arch.hpp"

#include <cuda.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::gpu {

/// What planning needs to know of a GPU. Also made for an Arch alone, when there is no GPU.
struct DeviceFacts {
    int ordinal = 0;
    std::string name;
    Arch arch;
    int multiprocessors = 0;
    int shared_bytes_per_block = 0;
    int shared_bytes_per_multiprocessor = 0;
    std::size_t l2_bytes = 0;
    std::size_t memory_bytes = 0;
    /// What planning takes such a GPU to reach at best, 16-bit products with fp32 sums, and memory reads: published or
    /// measured for the typical one of the architecture, the former scaled to this one's multiprocessors.
    double tensor_flop_per_second = 0;
    double memory_bytes_per_second = 0;
};

/// Facts of a typical GPU of `arch`.
[[nodiscard]] DeviceFacts facts_of(const Arch& arch);

/// Facts of a GPU by the name that its driver gives it. Throws Error{invalid_argument} that lists those known.
[[nodiscard]] DeviceFacts facts_of(std::string_view name);

/// What a GPU reaches at best, 16-bit products with fp32 sums, and memory reads.
struct Peak {
    double flop_per_second = 0;
    double bytes_per_second = 0;
};

/// Published or measured for a GPU of that name where it is known, else as its facts have it.
[[nodiscard]] Peak peak_of(const DeviceFacts& facts);

/// Facts of an installed GPU, read once a device. Throws Error{no_device} or Error{unsupported}.
[[nodiscard]] const DeviceFacts& device_facts(int ordinal);

[[nodiscard]] int device_count();

/// Primary contexts that an engine retained; released when it goes.
class PrimaryContexts {
 public:
    PrimaryContexts();
    ~PrimaryContexts();
    CUcontext get(int ordinal);

 private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Makes sure for its lifetime that the calling thread has a current context: the caller's own if there is one, else
/// the primary context of `fallback_device`, which is popped again at the end.
class CurrentContext {
 public:
    /// Throws Error{no_device} or Error{unsupported}, with the thread's contexts as they were.
    CurrentContext(PrimaryContexts& primaries, int fallback_device);
    ~CurrentContext();
    CurrentContext(const CurrentContext&) = delete;
    CurrentContext& operator=(const CurrentContext&) = delete;

    [[nodiscard]] CUcontext handle() const noexcept { return context_; }
    [[nodiscard]] const DeviceFacts& facts() const noexcept { return *facts_; }

 private:
    CUcontext context_ = nullptr;
    const DeviceFacts* facts_ = nullptr;
    bool pushed_ = false;
};

}  // namespace smlora::gpu
