#include "gpu/device.hpp"

#include "gpu/driver.hpp"
#include "gpu/known_gpus.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string_view>

namespace smlora::gpu {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t gib = std::size_t{1} << 30;

/// What Arch does not have of a typical GPU.
struct TypicalGpu {
    int arch;
    const char* name;
    std::size_t l2_bytes;
    std::size_t memory_bytes;
    double tera_flop_per_second;  // dense, 16-bit
    double giga_bytes_per_second;
};

// Under the names that their drivers give them, by which tuning records go; the first of an architecture is the typical
// one. Speeds as published, the H200's and the H100's as measured (docs/performance.md).
constexpr std::array typical_gpus = {
    TypicalGpu{80, "NVIDIA A100-SXM4-80GB", 40 * mib, 80 * gib, 312, 2039},
    TypicalGpu{86, "NVIDIA RTX A6000", 6 * mib, 48 * gib, 155, 768},
    TypicalGpu{87, "Orin", 4 * mib, 64 * gib, 42, 205},
    TypicalGpu{89, "NVIDIA L40S", 96 * mib, 48 * gib, 362, 864},
    TypicalGpu{90, "NVIDIA H200", 50 * mib, 141 * gib, 796, 4230},
    TypicalGpu{90, "NVIDIA H100 80GB HBM3", 50 * mib, 80 * gib, 790, 3008},
    TypicalGpu{100, "NVIDIA B200", 126 * mib, 180 * gib, 2250, 8000},
    TypicalGpu{103, "NVIDIA B300", 126 * mib, 270 * gib, 2250, 8000},
    TypicalGpu{120, "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 128 * mib, 96 * gib, 500, 1792},
    TypicalGpu{121, "NVIDIA GB10", 24 * mib, 120 * gib, 125, 273},
};

const TypicalGpu& typical_gpu(const Arch& arch) {
    const auto typical = std::find_if(typical_gpus.begin(), typical_gpus.end(),
                                      [&](const TypicalGpu& gpu) { return gpu.arch == arch.number(); });
    if (typical == typical_gpus.end()) {
        throw Error(ErrorCode::internal, "no typical GPU is known for " + arch.name());
    }
    return *typical;
}

/// Null when none of them has that name.
const TypicalGpu* find_gpu(std::string_view name) {
    const auto found =
        std::find_if(typical_gpus.begin(), typical_gpus.end(), [&](const TypicalGpu& gpu) { return gpu.name == name; });
    return found == typical_gpus.end() ? nullptr : &*found;
}

std::string known_names() {
    std::string names;
    for (const TypicalGpu& gpu : typical_gpus) names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", gpu.name);
    return names;
}

// The cost models were fitted with one pair of speeds for all GPUs of an architecture.
void set_speeds(DeviceFacts& facts) {
    const TypicalGpu& typical = typical_gpu(facts.arch);
    facts.tensor_flop_per_second =
        typical.tera_flop_per_second * 1e12 * facts.multiprocessors / facts.arch.multiprocessors;
    facts.memory_bytes_per_second = typical.giga_bytes_per_second * 1e9;
}

int attribute(CUdevice device, CUdevice_attribute which) {
    int value = 0;
    SMLORA_CUDA(cuDeviceGetAttribute, &value, which, device);
    return value;
}

DeviceFacts read_facts(int ordinal) {
    const int count = device_count();
    if (ordinal < 0 || ordinal >= count) {
        throw Error(ErrorCode::no_device,
                    fmt::format("device: expected the ordinal of one of {} CUDA devices, got {}", count, ordinal));
    }
    CUdevice device = 0;
    SMLORA_CUDA(cuDeviceGet, &device, ordinal);
    DeviceFacts facts;
    facts.ordinal = ordinal;
    std::array<char, 256> name{};
    SMLORA_CUDA(cuDeviceGetName, name.data(), static_cast<int>(name.size()) - 1, device);
    facts.name = name.data();
    facts.arch = arch_of_capability(attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
                                    attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
    facts.multiprocessors = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    facts.shared_bytes_per_block = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    facts.shared_bytes_per_multiprocessor = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    facts.l2_bytes = static_cast<std::size_t>(attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE));
    SMLORA_CUDA(cuDeviceTotalMem, &facts.memory_bytes, device);
    set_speeds(facts);
    return facts;
}

DeviceFacts facts_of(const TypicalGpu& gpu) {
    DeviceFacts facts;
    facts.name = gpu.name;
    facts.arch = arch_of_capability(gpu.arch / 10, gpu.arch % 10);
    facts.multiprocessors = facts.arch.multiprocessors;
    facts.shared_bytes_per_block = facts.arch.shared_bytes_per_block;
    facts.shared_bytes_per_multiprocessor = facts.arch.shared_bytes_per_multiprocessor;
    facts.l2_bytes = gpu.l2_bytes;
    facts.memory_bytes = gpu.memory_bytes;
    set_speeds(facts);
    return facts;
}

}  // namespace

DeviceFacts facts_of(const Arch& arch) { return facts_of(typical_gpu(arch)); }

DeviceFacts facts_of(std::string_view name) {
    if (const TypicalGpu* gpu = find_gpu(name)) return facts_of(*gpu);
    throw Error(ErrorCode::invalid_argument, fmt::format("gpu: expected one of {}, got \"{}\"", known_names(), name));
}

std::vector<std::string_view> known_gpus() {
    std::vector<std::string_view> names;
    for (const TypicalGpu& gpu : typical_gpus) names.push_back(gpu.name);
    return names;
}

Peak peak_of(const DeviceFacts& facts) {
    if (const TypicalGpu* gpu = find_gpu(facts.name)) {
        return {gpu->tera_flop_per_second * 1e12, gpu->giga_bytes_per_second * 1e9};
    }
    return {facts.tensor_flop_per_second, facts.memory_bytes_per_second};
}

const DeviceFacts& device_facts(int ordinal) {
    // Never destroyed: other threads and static objects may still ask while the process ends.
    static auto& mutex = *new std::shared_mutex;
    static auto& known = *new std::map<int, DeviceFacts>;
    {
        const std::shared_lock lock(mutex);
        if (const auto found = known.find(ordinal); found != known.end()) {
            return found->second;
        }
    }
    DeviceFacts facts = read_facts(ordinal);
    const std::unique_lock lock(mutex);
    return known.try_emplace(ordinal, std::move(facts)).first->second;
}

int device_count() {
    int count = 0;
    SMLORA_CUDA(cuDeviceGetCount, &count);
    return count;
}

struct PrimaryContexts::State {
    struct Retained {
        CUdevice device;
        CUcontext context;
    };

    std::mutex mutex;
    std::map<int, Retained> retained;
};

PrimaryContexts::PrimaryContexts() : state_(std::make_unique<State>()) {}

PrimaryContexts::~PrimaryContexts() {
    // Results are not looked at: at the end of a process the driver may be gone already, and its contexts with it.
    for (const auto& [ordinal, primary] : state_->retained) {
        driver().cuDevicePrimaryCtxRelease(primary.device);
    }
}

CUcontext PrimaryContexts::get(int ordinal) {
    const std::lock_guard lock(state_->mutex);
    const auto found = state_->retained.find(ordinal);
    if (found != state_->retained.end()) {
        return found->second.context;
    }
    State::Retained primary{};
    static_cast<void>(device_facts(ordinal));  // refuses an ordinal that is none, by name
    SMLORA_CUDA(cuDeviceGet, &primary.device, ordinal);
    SMLORA_CUDA(cuDevicePrimaryCtxRetain, &primary.context, primary.device);
    return state_->retained.emplace(ordinal, primary).first->second.context;
}

CurrentContext::CurrentContext(PrimaryContexts& primaries, int fallback_device) {
    SMLORA_CUDA(cuCtxGetCurrent, &context_);
    if (context_ != nullptr) {
        // A CUdevice is the device's ordinal.
        CUdevice device = 0;
        SMLORA_CUDA(cuCtxGetDevice, &device);
        facts_ = &device_facts(device);
        return;
    }
    facts_ = &device_facts(fallback_device);
    context_ = primaries.get(fallback_device);
    SMLORA_CUDA(cuCtxPushCurrent, context_);
    pushed_ = true;
}

CurrentContext::~CurrentContext() {
    if (pushed_) {
        CUcontext popped = nullptr;
        driver().cuCtxPopCurrent(&popped);
    }
}

}  // namespace smlora::gpu
