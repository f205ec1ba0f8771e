// Names of errors.
#include "cuda/exports.hpp"

namespace {

struct Text {
    CUresult result;
    const char* name;
    const char* description;
};

#define SMLORA_ERROR(name, description) \
    { name, #name, description }
constexpr Text texts[] = {
    SMLORA_ERROR(CUDA_SUCCESS, "no error"),
    SMLORA_ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    SMLORA_ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    SMLORA_ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    SMLORA_ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    SMLORA_ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    SMLORA_ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    SMLORA_ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    SMLORA_ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    SMLORA_ERROR(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    SMLORA_ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    SMLORA_ERROR(CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated"),
    SMLORA_ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    SMLORA_ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    SMLORA_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    SMLORA_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    SMLORA_ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
};
#undef SMLORA_ERROR

const Text* find(CUresult result) {
    for (const Text& text : texts) {
        if (text.result == result) return &text;
    }
    return nullptr;
}

}  // namespace

CUresult cuGetErrorName(CUresult result, const char** name) {
    const Text* const text = find(result);
    *name = text == nullptr ? nullptr : text->name;
    return text == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult result, const char** description) {
    const Text* const text = find(result);
    *description = text == nullptr ? nullptr : text->description;
    return text == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
