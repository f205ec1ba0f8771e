#include "gpu/driver.hpp"

#include <smlora/error.hpp>

#include <dlfcn.h>
#include <fmt/format.h>

#include <atomic>
#include <mutex>

namespace smlora::gpu {
namespace {

// Never libcuda.so: that is the name of the stub that toolkits bring for linking.
constexpr const char* library_name = "libcuda.so.1";

std::atomic<const Driver*> opened{nullptr};
std::atomic<const Driver*> substituted{nullptr};

void* symbol(void* handle, const char* name) {
    if (void* address = dlsym(handle, name)) {
        return address;
    }
    // The one function whose newest version (CUDA 12.8) differs from the first in how it is implemented, not in how it
    // is called: drivers of 12.0 to 12.7 serve as well.
    if (std::string_view(name) == "cuEventElapsedTime_v2") {
        return dlsym(handle, "cuEventElapsedTime");
    }
    return nullptr;
}

std::string version_of(void* handle) {
    const auto get_version = reinterpret_cast<decltype(&::cuDriverGetVersion)>(dlsym(handle, "cuDriverGetVersion"));
    int version = 0;
    if (get_version == nullptr || get_version(&version) != CUDA_SUCCESS) {
        return "of unknown version";
    }
    return fmt::format("for CUDA {}.{}", version / 1000, version % 1000 / 10);
}

[[noreturn]] void no_driver(const std::string& what) {
    throw Error(ErrorCode::no_device, "no usable CUDA driver: " + what);
}

}  // namespace

Driver load_driver(const std::string& library) {
    // Never closed again: the driver has threads of its own.
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        const char* reason = dlerror();
        no_driver(fmt::format("looked for {}, but the dynamic loader says: {}", library,
                              reason == nullptr ? "nothing" : reason));
    }
    Driver driver;
    // cuda.h renames a function to its current version by macro (cuMemAlloc is cuMemAlloc_v2). Passed on through one
    // more macro, the name is expanded before it becomes a string, so that it is the one that the types belong to.
#define SMLORA_STRING_OF(name) #name
#define SMLORA_STRING(name) SMLORA_STRING_OF(name)
#define SMLORA_RESOLVE(function)                                                                                      \
    driver.function = reinterpret_cast<decltype(driver.function)>(symbol(handle, SMLORA_STRING(function)));           \
    if (driver.function == nullptr) {                                                                                 \
        no_driver(fmt::format("{} is a driver {} and lacks the function {}; smlora needs one for CUDA 12.0 or newer", \
                              library, version_of(handle), SMLORA_STRING(function)));                                 \
    }
    SMLORA_CUDA_FUNCTIONS(SMLORA_RESOLVE)
#undef SMLORA_RESOLVE
#undef SMLORA_STRING
#undef SMLORA_STRING_OF
    return driver;
}

void initialize(const Driver& driver) {
    const CUresult result = driver.cuInit(0);
    if (result == CUDA_SUCCESS) {
        return;
    }
    if (result == CUDA_ERROR_STUB_LIBRARY) {
        no_driver(fmt::format("{} is the stub that the CUDA toolkit brings for linking, not a driver", library_name));
    }
    const char* name = nullptr;
    const char* text = nullptr;
    driver.cuGetErrorName(result, &name);
    driver.cuGetErrorString(result, &text);
    no_driver(fmt::format("{} was opened, but cuInit returned {} ({})", library_name,
                          name == nullptr ? std::to_string(static_cast<int>(result)) : name,
                          text == nullptr ? "no description" : text));
}

const Driver& driver() {
    if (const Driver* substitute = substituted.load(std::memory_order_acquire)) {
        return *substitute;
    }
    if (const Driver* ready = opened.load(std::memory_order_acquire)) {
        return *ready;
    }
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    if (const Driver* ready = opened.load(std::memory_order_relaxed)) {
        return *ready;
    }
    static Driver functions;
    functions = load_driver(library_name);
    initialize(functions);
    opened.store(&functions, std::memory_order_release);
    return functions;
}

DriverSubstitute::DriverSubstitute(const Driver& substitute) {
    substituted.store(&substitute, std::memory_order_release);
}
DriverSubstitute::~DriverSubstitute() { substituted.store(nullptr, std::memory_order_release); }

void check(CUresult result, const char* call) {
    if (result == CUDA_SUCCESS) {
        return;
    }
    const char* name = nullptr;
    const char* text = nullptr;
    driver().cuGetErrorName(result, &name);
    driver().cuGetErrorString(result, &text);
    throw Error(ErrorCode::cuda,
                fmt::format("{}: {} ({})", call, name == nullptr ? std::to_string(static_cast<int>(result)) : name,
                            text == nullptr ? "no description" : text));
}

}  // namespace smlora::gpu
