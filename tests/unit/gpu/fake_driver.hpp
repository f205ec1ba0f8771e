// A CUDA driver without a GPU: it keeps count of contexts, modules, memory and launches, and refuses what it is told
// to.
#pragma once

#include "gpu/driver.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::test {

/// Installed as the process's driver for its lifetime; one at a time. One device, an H200, with a primary context.
class FakeDriver {
 public:
    struct Launch {
        CUfunction function;
        unsigned grid_x, grid_y, threads, shared;
        CUstream stream;
        std::string args;
    };
    struct Module {
        std::string image;
        unsigned long long context;
    };

    FakeDriver() : substitute_((self = this, functions_ = make_functions(), functions_)) { stack().clear(); }
    ~FakeDriver() { self = nullptr; }
    FakeDriver(const FakeDriver&) = delete;
    FakeDriver& operator=(const FakeDriver&) = delete;

    /// A context that is not the device's primary one.
    static CUcontext other_context() { return reinterpret_cast<CUcontext>(std::uintptr_t{0xC0}); }
    static CUcontext primary_context() { return reinterpret_cast<CUcontext>(std::uintptr_t{0xA0}); }
    /// The calling thread's contexts, the current one last.
    static std::vector<CUcontext>& stack() {
        static thread_local std::vector<CUcontext> contexts;
        return contexts;
    }

    int primary_references = 0;
    std::map<CUmodule, Module> modules;
    int modules_loaded = 0;
    std::function<CUresult(std::string_view image)> on_load = [](std::string_view) { return CUDA_SUCCESS; };
    std::vector<std::pair<CUfunction_attribute, int>> attributes;
    int blocks_per_multiprocessor = 2;
    int most_dynamic_shared = 227 * 1024;
    std::size_t args_bytes = 0;  ///< of every kernel, for launches
    std::vector<Launch> launches;
    std::map<CUdeviceptr, std::size_t> memory;
    CUresult allocation_result = CUDA_SUCCESS;
    int pools = 0;
    int events = 0;
    int compute_capability[2] = {9, 0};
    CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    bool loaded_outside_relaxed_mode = false;
    std::vector<std::string> order;  ///< of things that must happen in order

 private:
    static inline FakeDriver* self = nullptr;

    static unsigned long long id_of(CUcontext context) { return reinterpret_cast<std::uintptr_t>(context); }
    static std::unique_lock<std::mutex> lock() { return std::unique_lock(self->mutex_); }

    static gpu::Driver make_functions() {
        gpu::Driver d;
        add_device(d);
        add_contexts(d);
        add_modules(d);
        add_memory(d);
        d.cuEventCreate = [](CUevent* event, unsigned) {
            *event = reinterpret_cast<CUevent>(static_cast<std::uintptr_t>(++self->events));
            return CUDA_SUCCESS;
        };
        d.cuEventDestroy = [](CUevent) {
            --self->events;
            return CUDA_SUCCESS;
        };
        d.cuEventRecord = [](CUevent, CUstream) { return CUDA_SUCCESS; };
        d.cuEventSynchronize = [](CUevent) { return CUDA_SUCCESS; };
        d.cuEventElapsedTime = [](float* milliseconds, CUevent start, CUevent stop) {
            *milliseconds = start == stop ? 0.0F : 1.5F;
            return CUDA_SUCCESS;
        };
        return d;
    }

    static void add_device(gpu::Driver& d) {
        d.cuGetErrorName = [](CUresult result, const char** name) {
            *name = result == CUDA_ERROR_OUT_OF_MEMORY   ? "CUDA_ERROR_OUT_OF_MEMORY"
                    : result == CUDA_ERROR_INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE"
                                                         : nullptr;
            return *name == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
        };
        d.cuGetErrorString = [](CUresult, const char** text) {
            *text = "as the test asked";
            return CUDA_SUCCESS;
        };
        d.cuDriverGetVersion = [](int* version) {
            *version = 13000;
            return CUDA_SUCCESS;
        };
        d.cuDeviceGetCount = [](int* count) {
            *count = 1;
            return CUDA_SUCCESS;
        };
        d.cuDeviceGet = [](CUdevice* device, int ordinal) {
            *device = ordinal;
            return CUDA_SUCCESS;
        };
        d.cuDeviceGetName = [](char* name, int size, CUdevice) {
            std::strncpy(name, "Fake H200", static_cast<std::size_t>(size));
            return CUDA_SUCCESS;
        };
        d.cuDeviceTotalMem = [](std::size_t* bytes, CUdevice) {
            *bytes = std::size_t{141} << 30;
            return CUDA_SUCCESS;
        };
        d.cuDeviceGetAttribute = [](int* value, CUdevice_attribute attribute, CUdevice) {
            switch (attribute) {
                case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
                    *value = self->compute_capability[0];
                    return CUDA_SUCCESS;
                case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
                    *value = self->compute_capability[1];
                    return CUDA_SUCCESS;
                case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
                    *value = 131;
                    return CUDA_SUCCESS;
                case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
                    *value = 227 * 1024;
                    return CUDA_SUCCESS;
                case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
                    *value = 228 * 1024;
                    return CUDA_SUCCESS;
                case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
                    *value = 50 << 20;
                    return CUDA_SUCCESS;
                default:
                    return CUDA_ERROR_INVALID_VALUE;
            }
        };
    }

    static void add_contexts(gpu::Driver& d) {
        d.cuDevicePrimaryCtxRetain = [](CUcontext* context, CUdevice) {
            const auto held = lock();
            ++self->primary_references;
            *context = primary_context();
            return CUDA_SUCCESS;
        };
        d.cuDevicePrimaryCtxRelease = [](CUdevice) {
            const auto held = lock();
            --self->primary_references;
            self->order.emplace_back("release");
            return CUDA_SUCCESS;
        };
        d.cuDevicePrimaryCtxGetState = [](CUdevice, unsigned* flags, int* active) {
            const auto held = lock();
            *flags = 0;
            *active = self->primary_references > 0 ? 1 : 0;
            return CUDA_SUCCESS;
        };
        d.cuCtxGetCurrent = [](CUcontext* context) {
            *context = stack().empty() ? nullptr : stack().back();
            return CUDA_SUCCESS;
        };
        d.cuCtxPushCurrent = [](CUcontext context) {
            stack().push_back(context);
            return CUDA_SUCCESS;
        };
        d.cuCtxPopCurrent = [](CUcontext* context) {
            *context = stack().back();
            stack().pop_back();
            return CUDA_SUCCESS;
        };
        d.cuCtxGetDevice = [](CUdevice* device) {
            *device = 0;
            return stack().empty() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
        };
        d.cuCtxGetId = [](CUcontext context, unsigned long long* id) {
            *id = id_of(context);
            return CUDA_SUCCESS;
        };
        d.cuThreadExchangeStreamCaptureMode = [](CUstreamCaptureMode* mode) {
            const auto held = lock();
            std::swap(self->capture_mode, *mode);
            return CUDA_SUCCESS;
        };
    }

    static void add_modules(gpu::Driver& d) {
        d.cuModuleLoadData = [](CUmodule* module, const void* image) {
            const auto held = lock();
            self->loaded_outside_relaxed_mode |= self->capture_mode != CU_STREAM_CAPTURE_MODE_RELAXED;
            // An ELF image ends with its section headers or its program headers; the tests' own images are short texts.
            const std::string_view start(static_cast<const char*>(image), 4);
            const CUresult result = self->on_load(start);
            if (result == CUDA_SUCCESS) {
                *module = reinterpret_cast<CUmodule>(static_cast<std::uintptr_t>(++self->modules_loaded) * 16);
                self->modules[*module] = {std::string(start), id_of(stack().back())};
            }
            return result;
        };
        d.cuModuleUnload = [](CUmodule module) {
            const auto held = lock();
            self->order.emplace_back("unload");
            return self->modules.erase(module) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
        };
        d.cuModuleGetFunction = [](CUfunction* function, CUmodule module, const char*) {
            *function = reinterpret_cast<CUfunction>(reinterpret_cast<std::uintptr_t>(module) + 1);
            return CUDA_SUCCESS;
        };
        d.cuFuncSetAttribute = [](CUfunction, CUfunction_attribute attribute, int value) {
            const auto held = lock();
            if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && value > self->most_dynamic_shared) {
                return CUDA_ERROR_INVALID_VALUE;
            }
            self->attributes.emplace_back(attribute, value);
            return CUDA_SUCCESS;
        };
        d.cuOccupancyMaxActiveBlocksPerMultiprocessor = [](int* blocks, CUfunction, int, std::size_t) {
            *blocks = self->blocks_per_multiprocessor;
            return CUDA_SUCCESS;
        };
        d.cuLaunchKernelEx = [](const CUlaunchConfig* config, CUfunction function, void** parameters, void**) {
            const auto held = lock();
            self->launches.push_back({function, config->gridDimX, config->gridDimY, config->blockDimX,
                                      config->sharedMemBytes, config->hStream,
                                      std::string(static_cast<const char*>(parameters[0]), self->args_bytes)});
            return CUDA_SUCCESS;
        };
    }

    static void add_memory(gpu::Driver& d) {
        d.cuMemPoolCreate = [](CUmemoryPool* pool, const CUmemPoolProps*) {
            *pool = reinterpret_cast<CUmemoryPool>(static_cast<std::uintptr_t>(++self->pools));
            return CUDA_SUCCESS;
        };
        d.cuMemPoolSetAttribute = [](CUmemoryPool, CUmemPool_attribute, void*) { return CUDA_SUCCESS; };
        d.cuMemPoolTrimTo = [](CUmemoryPool, std::size_t kept) {
            self->order.push_back(kept == 0 ? "trim" : "trim a part");
            return CUDA_SUCCESS;
        };
        d.cuMemAllocFromPoolAsync = [](CUdeviceptr* address, std::size_t bytes, CUmemoryPool, CUstream) {
            const auto held = lock();
            if (self->allocation_result == CUDA_SUCCESS) {
                *address = (self->memory.size() + 1) * 4096;
                self->memory[*address] = bytes;
            }
            return self->allocation_result;
        };
        d.cuMemFreeAsync = [](CUdeviceptr address, CUstream) {
            const auto held = lock();
            return self->memory.erase(address) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
        };
    }

    std::mutex mutex_;
    gpu::Driver functions_;
    gpu::DriverSubstitute substitute_;
};

}  // namespace smlora::test
