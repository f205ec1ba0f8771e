#include "gpu/pool.hpp"

#include "gpu/capture_mode.hpp"
#include "gpu/driver.hpp"
#include "gpu/primary_hold.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <limits>
#include <map>
#include <mutex>
#include <shared_mutex>

namespace smlora::gpu {
namespace {

CUmemoryPool make_pool(CUdevice device) {
    const RelaxedCaptureMode relaxed;
    // The pool would go with the primary context, when another part of the program is done with that.
    PrimaryHold hold;
    CUmemPoolProps properties{};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.handleTypes = CU_MEM_HANDLE_TYPE_NONE;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    CUmemoryPool pool = nullptr;
    SMLORA_CUDA(cuMemPoolCreate, &pool, &properties);
    cuuint64_t threshold = std::numeric_limits<cuuint64_t>::max();
    SMLORA_CUDA(cuMemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold);
    hold.keep();
    return pool;
}

CUmemoryPool pool_of_current_device() {
    // Never destroyed: buffers may be freed while static objects go.
    static auto& mutex = *new std::shared_mutex;
    static auto& pools = *new std::map<CUdevice, CUmemoryPool>;
    CUdevice device = 0;
    SMLORA_CUDA(cuCtxGetDevice, &device);
    {
        const std::shared_lock lock(mutex);
        if (const auto found = pools.find(device); found != pools.end()) {
            return found->second;
        }
    }
    const std::unique_lock lock(mutex);
    if (const auto found = pools.find(device); found != pools.end()) {
        return found->second;
    }
    return pools.emplace(device, make_pool(device)).first->second;
}

}  // namespace

void trim_pool() {
    const RelaxedCaptureMode relaxed;
    SMLORA_CUDA(cuMemPoolTrimTo, pool_of_current_device(), 0);
}

StreamBuffer::StreamBuffer(CUstream stream, std::size_t bytes) : stream_(stream), bytes_(bytes) {
    if (bytes == 0) {
        return;
    }
    const CUresult result = driver().cuMemAllocFromPoolAsync(&address_, bytes, pool_of_current_device(), stream);
    if (result != CUDA_SUCCESS) {
        check(result, fmt::format("cuMemAllocFromPoolAsync of {} bytes of workspace", bytes).c_str());
    }
}

StreamBuffer::~StreamBuffer() {
    if (address_ != 0) {
        driver().cuMemFreeAsync(address_, stream_);
    }
}

void* StreamBuffer::data() const noexcept {
    // A device address is a number to the driver and a pointer everywhere else.
    return reinterpret_cast<void*>(address_);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace smlora::gpu
