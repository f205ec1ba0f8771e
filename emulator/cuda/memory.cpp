// Memory, and copies of it.
#include "cuda/device.hpp"
#include "cuda/stream.hpp"
#include "runtime/poison.hpp"

#include <fmt/format.h>

#include <cstring>
#include <new>

using namespace smlora::emulator;

namespace {

CUresult allocate(Device& device, CUdeviceptr* address, std::size_t bytes) {
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    std::size_t free = 0;
    std::size_t total = 0;
    cuMemGetInfo(&free, &total);
    if (bytes > free) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = address_of(device.machine.memory().allocate(bytes));
    // Without runs nothing is written later, and what the host reads is to be no error.
    if (!device.runs) std::memset(pointer_of(*address), 0, bytes);
    return CUDA_SUCCESS;
}

CUresult release(Device& device, CUdeviceptr address) {
    if (address == 0) return CUDA_SUCCESS;
    if (!device.machine.memory().free(pointer_of(address))) {
        complain(fmt::format("{:#x} is freed, but was not allocated", address));
        return CUDA_ERROR_INVALID_VALUE;
    }
    return check_guards(device);
}

bool inside(Device& device, CUdeviceptr address, std::size_t bytes, const char* call) {
    if (bytes == 0 || device.machine.memory().holds(address, bytes)) return true;
    complain(fmt::format("{}: {} bytes at {:#x} are not in device memory: {}", call, bytes, address,
                         device.machine.memory().describe(address)));
    return false;
}

template <class Function>
CUresult at_once(CUdeviceptr address, std::size_t bytes, const char* call, const Function& function) {
    return with_device([&](Device& device) {
        const CUresult refusal = refuse_in_capture();
        if (refusal != CUDA_SUCCESS) return refusal;
        if (!inside(device, address, bytes, call)) return CUDA_ERROR_INVALID_VALUE;
        if (bytes != 0) function();
        return check_guards(device);
    });
}

}  // namespace

CUresult cuMemAlloc(CUdeviceptr* address, std::size_t bytes) {
    return with_device([&](Device& device) {
        const CUresult refusal = refuse_in_capture();
        return refusal == CUDA_SUCCESS ? allocate(device, address, bytes) : refusal;
    });
}

CUresult cuMemFree(CUdeviceptr address) {
    return with_device([&](Device& device) {
        const CUresult refusal = refuse_in_capture();
        return refusal == CUDA_SUCCESS ? release(device, address) : refusal;
    });
}

CUresult cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps*) {
    const CUresult refusal = refuse_in_capture();
    *pool = reinterpret_cast<CUmemoryPool>(&Device::instance());
    return refusal;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void*) { return CUDA_SUCCESS; }

CUresult cuMemPoolTrimTo(CUmemoryPool, std::size_t) { return CUDA_SUCCESS; }

CUresult cuMemAllocAsync(CUdeviceptr* address, std::size_t bytes, CUstream stream) {
    return with_busy_device([&](Device& device) {
        const CUresult result = allocate(device, address, bytes);
        if (result != CUDA_SUCCESS || stream == nullptr || stream->recording == nullptr) return result;
        stream->recording->memory.push_back(pointer_of(*address));
        return put(stream, [memory = pointer_of(*address), bytes](Device&) {
            poison(memory, bytes);
            return CUDA_SUCCESS;
        });
    });
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, std::size_t bytes, CUmemoryPool, CUstream stream) {
    return cuMemAllocAsync(address, bytes, stream);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
    return with_device([&](Device& device) {
        // Memory of a graph lives as long as the graph.
        if (stream != nullptr && stream->recording != nullptr) return CUDA_SUCCESS;
        return release(device, address);
    });
}

CUresult cuMemcpyHtoD(CUdeviceptr target, const void* source, std::size_t bytes) {
    return at_once(target, bytes, "cuMemcpyHtoD", [&] { std::memcpy(pointer_of(target), source, bytes); });
}

CUresult cuMemcpyDtoH(void* target, CUdeviceptr source, std::size_t bytes) {
    return at_once(source, bytes, "cuMemcpyDtoH", [&] { std::memcpy(target, pointer_of(source), bytes); });
}

CUresult cuMemsetD8(CUdeviceptr target, unsigned char value, std::size_t bytes) {
    return at_once(target, bytes, "cuMemsetD8", [&] { std::memset(pointer_of(target), value, bytes); });
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr target, CUdeviceptr source, std::size_t bytes, CUstream stream) {
    return put(stream, [=](Device& device) {
        if (!inside(device, target, bytes, "cuMemcpyDtoDAsync") ||
            !inside(device, source, bytes, "cuMemcpyDtoDAsync")) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        std::memmove(pointer_of(target), pointer_of(source), bytes);
        return CUDA_SUCCESS;
    });
}

CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, std::size_t bytes, CUstream stream) {
    return put(stream, [=](Device& device) {
        if (!inside(device, target, bytes, "cuMemsetD8Async")) return CUDA_ERROR_INVALID_VALUE;
        std::memset(pointer_of(target), value, bytes);
        return CUDA_SUCCESS;
    });
}

CUresult cuMemsetD32Async(CUdeviceptr target, unsigned value, std::size_t count, CUstream stream) {
    return put(stream, [=](Device& device) {
        if (!inside(device, target, count * 4, "cuMemsetD32Async")) return CUDA_ERROR_INVALID_VALUE;
        std::fill_n(static_cast<unsigned*>(pointer_of(target)), count, value);
        return CUDA_SUCCESS;
    });
}
