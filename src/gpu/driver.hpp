// libcuda, opened when first needed.
#pragma once

#include <cuda.h>

#include <string>

// The driver functions that the library calls, and no other: a driver that lacks one of them is refused. Everything
// else about the loader is generated from this list.
#define SMLORA_CUDA_FUNCTIONS(X)                   \
    X(cuInit)                                      \
    X(cuDriverGetVersion)                          \
    X(cuGetErrorName)                              \
    X(cuGetErrorString)                            \
    X(cuDeviceGet)                                 \
    X(cuDeviceGetCount)                            \
    X(cuDeviceGetName)                             \
    X(cuDeviceTotalMem)                            \
    X(cuDeviceGetAttribute)                        \
    X(cuDevicePrimaryCtxRetain)                    \
    X(cuDevicePrimaryCtxRelease)                   \
    X(cuDevicePrimaryCtxGetState)                  \
    X(cuCtxGetCurrent)                             \
    X(cuCtxPushCurrent)                            \
    X(cuCtxPopCurrent)                             \
    X(cuCtxGetDevice)                              \
    X(cuCtxGetId)                                  \
    X(cuCtxSynchronize)                            \
    X(cuModuleLoadData)                            \
    X(cuModuleUnload)                              \
    X(cuModuleGetFunction)                         \
    X(cuFuncSetAttribute)                          \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor) \
    X(cuLaunchKernelEx)                            \
    X(cuTensorMapEncodeTiled)                      \
    X(cuMemAlloc)                                  \
    X(cuMemFree)                                   \
    X(cuMemAllocFromPoolAsync)                     \
    X(cuMemFreeAsync)                              \
    X(cuMemPoolCreate)                             \
    X(cuMemPoolSetAttribute)                       \
    X(cuMemPoolTrimTo)                             \
    X(cuMemGetInfo)                                \
    X(cuMemcpyHtoD)                                \
    X(cuMemcpyDtoH)                                \
    X(cuMemcpyDtoDAsync)                           \
    X(cuMemsetD8)                                  \
    X(cuMemsetD8Async)                             \
    X(cuMemsetD32Async)                            \
    X(cuStreamCreate)                              \
    X(cuStreamDestroy)                             \
    X(cuStreamSynchronize)                         \
    X(cuStreamIsCapturing)                         \
    X(cuThreadExchangeStreamCaptureMode)           \
    X(cuStreamWaitEvent)                           \
    X(cuEventCreate)                               \
    X(cuEventDestroy)                              \
    X(cuEventRecord)                               \
    X(cuEventSynchronize)                          \
    X(cuEventElapsedTime)

namespace smlora::gpu {

/// The driver's functions, under their own names: driver().cuMemAlloc(&pointer, bytes).
struct Driver {
#define SMLORA_DECLARE(function) decltype(&::function) function = nullptr;
    SMLORA_CUDA_FUNCTIONS(SMLORA_DECLARE)
#undef SMLORA_DECLARE
};

/// Opens libcuda.so.1 and calls cuInit; the first call that succeeds does so for the whole process. Throws
/// Error{no_device} that says what was looked for and what came; a later call tries again. libcuda stays open.
const Driver& driver();

/// Opens `library` and resolves every function. Throws Error{no_device} if it cannot be opened, or if it lacks a
/// function, which it names together with the driver's version.
[[nodiscard]] Driver load_driver(const std::string& library);

/// Calls cuInit. Throws Error{no_device} if there is no GPU, or only the stub that toolkits bring for linking.
void initialize(const Driver& driver);

/// For its lifetime driver() gives `substitute` to every thread: tests of code that calls the driver need no GPU.
class DriverSubstitute {
 public:
    explicit DriverSubstitute(const Driver& substitute);
    ~DriverSubstitute();
    DriverSubstitute(const DriverSubstitute&) = delete;
    DriverSubstitute& operator=(const DriverSubstitute&) = delete;
};

/// Throws Error{cuda} with the call, the error's name and its description.
void check(CUresult result, const char* call);

/// SMLORA_CUDA(cuMemAlloc, &pointer, bytes): calls and checks.
#define SMLORA_CUDA(function, ...) ::smlora::gpu::check(::smlora::gpu::driver().function(__VA_ARGS__), #function)

}  // namespace smlora::gpu
