#include "gpu/module.hpp"

#include "gpu/capture_mode.hpp"
#include "gpu/driver.hpp"

namespace smlora::gpu {

CUresult Modules::load(const std::string& image, const std::string& symbol, CUfunction& function) {
    const RelaxedCaptureMode relaxed;
    modules_.reserve(modules_.size() + 1);
    CUmodule module = nullptr;
    CUresult result = driver().cuModuleLoadData(&module, image.data());
    if (result != CUDA_SUCCESS) {
        return result;
    }
    result = driver().cuModuleGetFunction(&function, module, symbol.c_str());
    if (result != CUDA_SUCCESS) {
        driver().cuModuleUnload(module);
        return result;
    }
    modules_.push_back(module);
    return CUDA_SUCCESS;
}

void Modules::unload_last() {
    driver().cuModuleUnload(modules_.back());
    modules_.pop_back();
}

Modules::~Modules() {
    if (!hold_.holds() || modules_.empty() || driver().cuCtxPushCurrent(hold_.context()) != CUDA_SUCCESS) {
        return;
    }
    for (CUmodule module : modules_) {
        driver().cuModuleUnload(module);
    }
    CUcontext popped = nullptr;
    driver().cuCtxPopCurrent(&popped);
}

bool is_refusal(CUresult result) {
    switch (result) {
        case CUDA_ERROR_INVALID_IMAGE:
        case CUDA_ERROR_NO_BINARY_FOR_GPU:
        case CUDA_ERROR_INVALID_PTX:
        case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
        case CUDA_ERROR_INVALID_SOURCE:
        case CUDA_ERROR_NOT_FOUND:
            return true;
        default:
            return false;
    }
}

}  // namespace smlora::gpu
