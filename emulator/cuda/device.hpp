// The one device of the process, and the lock that every driver call holds while it uses it.
#pragma once

#include "cuda/exports.hpp"
#include "runtime/machine.hpp"

#include <mutex>

namespace smlora::emulator {

/// Of the GPU that SMLORA_EMULATOR_GPU names ("80", "86" or "90", which is the default); fewer than a real one has, so
/// that a persistent grid has several tiles a block.
constexpr int multiprocessors = 4;

class Device {
 public:
    /// Made by the first call.
    static Device& instance();

    /// Runs what is left of launches; their failures are results of the call that comes next, as on a GPU.
    CUresult finish();

    /// Whether what is put on a stream is done: unless SMLORA_EMULATOR_RUN is 0.
    const bool runs;
    std::recursive_mutex mutex;
    Machine machine;
    int primary_references = 0;

 private:
    Device();
};

/// Runs a call under the device's lock, with launches as far as they are.
template <class Function>
CUresult with_busy_device(const Function& function) {
    Device& device = Device::instance();
    const std::lock_guard lock(device.mutex);
    return function(device);
}

/// The same when all launches are done.
template <class Function>
CUresult with_device(const Function& function) {
    return with_busy_device([&](Device& device) {
        const CUresult result = device.finish();
        return result == CUDA_SUCCESS ? function(device) : result;
    });
}

CUresult result_of(const Failure& failure);

/// Prints a report.
void complain(const std::string& text);

/// Looks at the guards of all memory; CUDA_ERROR_ILLEGAL_ADDRESS, with a report, if one was overwritten.
CUresult check_guards(Device& device);

inline void* pointer_of(CUdeviceptr address) { return reinterpret_cast<void*>(address); }
inline CUdeviceptr address_of(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

}  // namespace smlora::emulator
