// Functions and their launches.
#include "cuda/device.hpp"
#include "cuda/module.hpp"
#include "cuda/stream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

using namespace smlora::emulator;

namespace {

/// A copy of a launch's parameters, each aligned as any type may be.
class Parameters {
 public:
    Parameters(const Kernel& kernel, void** sources) {
        for (std::size_t i = 0; i < kernel.parameter_bytes.size(); ++i) {
            constexpr std::size_t alignment = 128;
            const std::size_t bytes = (kernel.parameter_bytes[i] + alignment - 1) / alignment * alignment;
            pieces_.emplace_back(static_cast<char*>(std::aligned_alloc(alignment, bytes)), &std::free);
            std::memcpy(pieces_.back().get(), sources[i], kernel.parameter_bytes[i]);
            addresses_.push_back(pieces_.back().get());
        }
    }
    [[nodiscard]] void* const* addresses() const { return addresses_.data(); }

 private:
    std::vector<std::unique_ptr<char, void (*)(void*)>> pieces_;
    std::vector<void*> addresses_;
};

CUresult refuse(CUresult result, const Kernel& kernel, const std::string& why) {
    complain(fmt::format("launch of {}: {}", kernel.name, why));
    return result;
}

CUresult check(const Launch& launch, const Model& model) {
    const Kernel& kernel = *launch.kernel;
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    if (launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.z == 0 || threads == 0) {
        return refuse(CUDA_ERROR_INVALID_VALUE, kernel, "an empty grid or block");
    }
    if (threads > kernel.most_threads) {
        return refuse(CUDA_ERROR_INVALID_VALUE, kernel,
                      fmt::format("{} threads a block, compiled for {}", threads, kernel.most_threads));
    }
    if (launch.dynamic_shared > kernel.most_dynamic_shared) {
        return refuse(CUDA_ERROR_INVALID_VALUE, kernel,
                      fmt::format("{} bytes of dynamic shared memory, {} were asked for by attribute",
                                  launch.dynamic_shared, kernel.most_dynamic_shared));
    }
    const Index3 cluster = launch.cluster;
    const unsigned blocks = cluster.x * cluster.y * cluster.z;
    if (blocks == 0 || blocks > 8 || (blocks > 1 && model.major < 9) || launch.grid.x % cluster.x != 0 ||
        launch.grid.y % cluster.y != 0 || launch.grid.z % cluster.z != 0) {
        return refuse(CUDA_ERROR_INVALID_VALUE, kernel,
                      fmt::format("clusters of ({}, {}, {})", cluster.x, cluster.y, cluster.z));
    }
    return CUDA_SUCCESS;
}

}  // namespace

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    return with_device([&](Device& device) {
        if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
            if (value < 0 || static_cast<unsigned>(value) > device.machine.model().shared_bytes_per_block) {
                return CUDA_ERROR_INVALID_VALUE;
            }
            function->kernel.most_dynamic_shared = static_cast<unsigned>(value);
        }
        return CUDA_SUCCESS;
    });
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    return with_device([&](Device&) {
        switch (attribute) {
            case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
                *value = static_cast<int>(function->kernel.most_threads);
                return CUDA_SUCCESS;
            case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
                *value = static_cast<int>(function->kernel.most_dynamic_shared);
                return CUDA_SUCCESS;
            default:
                return CUDA_ERROR_NOT_SUPPORTED;
        }
    });
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int threads, std::size_t dynamic_shared) {
    constexpr std::size_t most_threads = 1536;   // of the GPUs with the fewest
    constexpr std::size_t of_the_system = 1024;  // of each block's shared memory
    const auto threads_of_warps = static_cast<std::size_t>((threads + 31) / 32 * 32);
    const std::size_t shared = Device::instance().machine.model().shared_bytes_per_multiprocessor;
    *blocks = static_cast<int>(std::min(most_threads / threads_of_warps, shared / (dynamic_shared + of_the_system)));
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters, void** extra) {
    if (extra != nullptr || (parameters == nullptr && !function->kernel.parameter_bytes.empty())) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    Launch launch;
    launch.kernel = &function->kernel;
    launch.grid = {config->gridDimX, config->gridDimY, config->gridDimZ};
    launch.block = {config->blockDimX, config->blockDimY, config->blockDimZ};
    launch.dynamic_shared = config->sharedMemBytes;
    if (launch.kernel->cluster.x != 0) launch.cluster = launch.kernel->cluster;
    for (unsigned i = 0; i < config->numAttrs; ++i) {
        const CUlaunchAttribute& attribute = config->attrs[i];
        if (attribute.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
            launch.cluster = {attribute.value.clusterDim.x, attribute.value.clusterDim.y, attribute.value.clusterDim.z};
        } else if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
            launch.overlaps = attribute.value.programmaticStreamSerializationAllowed != 0;
        }
    }
    const CUresult refusal = check(launch, Device::instance().machine.model());
    if (refusal != CUDA_SUCCESS) return refusal;
    const auto copies = std::make_shared<Parameters>(*launch.kernel, parameters);
    launch.parameters = copies->addresses();
    launch.parameters_owner = copies;
    return put_launch(config->hStream, [launch](Device& device) {
        *launch.waited = false;
        try {
            device.machine.run(launch);
        } catch (const Failure& failure) {
            return result_of(failure);
        }
        return CUDA_SUCCESS;
    });
}
