// Contexts: the primary one of the one device, and each thread's stack of current ones.
#include "cuda/device.hpp"

#include <array>
#include <cstddef>

using namespace smlora::emulator;

namespace {

CUcontext primary() { return reinterpret_cast<CUcontext>(&Device::instance().primary_references); }

/// Without a destructor: static objects make calls after those of a thread are gone.
struct Stack {
    std::array<CUcontext, 16> contexts;
    std::size_t count;
};
thread_local Stack stack;

CUcontext current() { return stack.count == 0 ? nullptr : stack.contexts[stack.count - 1]; }

}  // namespace

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    return with_device([&](Device& device) {
        ++device.primary_references;
        *context = primary();
        return CUDA_SUCCESS;
    });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) {
    return with_device([](Device& device) {
        if (device.primary_references == 0) return CUDA_ERROR_INVALID_CONTEXT;
        --device.primary_references;
        return CUDA_SUCCESS;
    });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
    return with_device([&](Device& device) {
        *flags = 0;
        *active = device.primary_references > 0 ? 1 : 0;
        return CUDA_SUCCESS;
    });
}

CUresult cuCtxGetCurrent(CUcontext* context) {
    *context = current();
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    if (stack.count > 0) --stack.count;
    return context == nullptr ? CUDA_SUCCESS : cuCtxPushCurrent(context);
}

CUresult cuCtxPushCurrent(CUcontext context) {
    if (context != primary()) return CUDA_ERROR_INVALID_CONTEXT;
    if (stack.count == stack.contexts.size()) return CUDA_ERROR_OUT_OF_MEMORY;
    stack.contexts[stack.count++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
    if (stack.count == 0) return CUDA_ERROR_INVALID_CONTEXT;
    *context = stack.contexts[--stack.count];
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
    *device = 0;
    return current() == nullptr ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext, unsigned long long* id) {
    *id = 1;
    return CUDA_SUCCESS;
}
