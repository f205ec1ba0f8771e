#include "cuda/device.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

namespace smlora::emulator {
namespace {

constexpr unsigned kib = 1024;
constexpr std::size_t total_memory = std::size_t{4} << 30;

constexpr std::array models = {
    Model{8, 0, "Emulated A100", 163 * kib, 164 * kib, 40 << 20},
    Model{8, 6, "Emulated RTX A6000", 99 * kib, 100 * kib, 6 << 20},
    Model{9, 0, "Emulated H200", 227 * kib, 228 * kib, 50 << 20},
};

const Model* chosen_model() {
    const char* const name = std::getenv("SMLORA_EMULATOR_GPU");
    const std::string wanted = name == nullptr ? "90" : name;
    for (const Model& model : models) {
        if (wanted == std::to_string(model.major * 10 + model.minor)) return &model;
    }
    return nullptr;
}

std::uint64_t chosen_seed() {
    if (const char* const text = std::getenv("SMLORA_EMULATOR_SEED")) return std::strtoull(text, nullptr, 0);
    std::random_device source;
    return source();
}

bool is_to_run() {
    const char* const text = std::getenv("SMLORA_EMULATOR_RUN");
    return text == nullptr || std::string(text) != "0";
}

}  // namespace

Device::Device() : runs(is_to_run()), machine(*chosen_model(), chosen_seed()) {}

Device& Device::instance() {
    // Never destroyed: static objects of the program may still make calls when it ends.
    static auto& device = *new Device;
    return device;
}

CUresult Device::finish() {
    try {
        machine.finish();
    } catch (const Failure& failure) {
        return result_of(failure);
    }
    return CUDA_SUCCESS;
}

CUresult result_of(const Failure& failure) {
    complain(failure.what());
    switch (failure.kind()) {
        case Failure::Kind::deadlock:
            return CUDA_ERROR_LAUNCH_TIMEOUT;
        case Failure::Kind::address:
            return CUDA_ERROR_ILLEGAL_ADDRESS;
        case Failure::Kind::misuse:
            return CUDA_ERROR_LAUNCH_FAILED;
    }
    return CUDA_ERROR_UNKNOWN;
}

void complain(const std::string& text) { std::fprintf(stderr, "GPU emulator: %s\n", text.c_str()); }

CUresult check_guards(Device& device) {
    const auto damage = device.machine.memory().overwritten_guards();
    if (!damage) return CUDA_SUCCESS;
    complain(*damage);
    return CUDA_ERROR_ILLEGAL_ADDRESS;
}

}  // namespace smlora::emulator

using namespace smlora::emulator;

CUresult cuInit(unsigned) {
    if (chosen_model() == nullptr) {
        complain("SMLORA_EMULATOR_GPU: expected 80, 86 or 90");
        return CUDA_ERROR_NO_DEVICE;
    }
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
    std::snprintf(name, static_cast<std::size_t>(bytes), "%s", Device::instance().machine.model().name);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(std::size_t* bytes, CUdevice) {
    *bytes = total_memory;
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(std::size_t* free, std::size_t* total) {
    return with_busy_device([&](Device& device) {
        *total = total_memory;
        *free = total_memory - std::min(total_memory, device.machine.memory().bytes());
        return CUDA_SUCCESS;
    });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    const Model& model = Device::instance().machine.model();
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            *value = model.major;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            *value = model.minor;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
            *value = multiprocessors;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
            *value = static_cast<int>(model.shared_bytes_per_block);
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
            *value = static_cast<int>(model.shared_bytes_per_multiprocessor);
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
            *value = model.l2_bytes;
            return CUDA_SUCCESS;
        default:
            complain("cuDeviceGetAttribute: attribute " + std::to_string(attribute) + " is not emulated");
            return CUDA_ERROR_INVALID_VALUE;
    }
}
