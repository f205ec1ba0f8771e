// cuTensorMapEncodeTiled, with the checks that its documentation states.
#include "runtime/tensor_map.hpp"

#include "cuda/device.hpp"

#include <fmt/format.h>

#include <cstring>

using namespace smlora::emulator;

namespace {

unsigned element_bytes(CUtensorMapDataType type) {
    switch (type) {
        case CU_TENSOR_MAP_DATA_TYPE_UINT8:
            return 1;
        case CU_TENSOR_MAP_DATA_TYPE_UINT16:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
        case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
            return 2;
        case CU_TENSOR_MAP_DATA_TYPE_UINT32:
        case CU_TENSOR_MAP_DATA_TYPE_INT32:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
            return 4;
        default:
            return 0;
    }
}

int swizzle_bytes(CUtensorMapSwizzle swizzle) {
    switch (swizzle) {
        case CU_TENSOR_MAP_SWIZZLE_NONE:
            return 0;
        case CU_TENSOR_MAP_SWIZZLE_32B:
            return 32;
        case CU_TENSOR_MAP_SWIZZLE_64B:
            return 64;
        case CU_TENSOR_MAP_SWIZZLE_128B:
            return 128;
        default:
            return -1;
    }
}

CUresult refuse(const std::string& why, CUresult result = CUDA_ERROR_INVALID_VALUE) {
    complain("cuTensorMapEncodeTiled: " + why);
    return result;
}

}  // namespace

CUresult cuTensorMapEncodeTiled(CUtensorMap* encoded, CUtensorMapDataType type, cuuint32_t dimensions, void* address,
                                const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    if (Device::instance().machine.model().major < 9) {
        return refuse("tensor maps are for sm_90 and later", CUDA_ERROR_NOT_SUPPORTED);
    }
    TensorMap map;
    map.mark = TensorMap::valid_mark;
    const unsigned bytes = element_bytes(type);
    const int span = swizzle_bytes(swizzle);
    if (bytes == 0 || span < 0 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) {
        return refuse("this type, swizzle or interleave is not emulated", CUDA_ERROR_NOT_SUPPORTED);
    }
    map.element_bytes = static_cast<std::uint8_t>(bytes);
    map.swizzle_bytes = static_cast<std::uint8_t>(span);
    map.fill_with_nan = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA ? 1 : 0;
    if (reinterpret_cast<unsigned long>(encoded) % 64 != 0) return refuse("the map is not aligned to 64 bytes");
    if (dimensions < 1 || dimensions > most_dimensions) return refuse(fmt::format("{} dimensions", dimensions));
    map.dimensions = static_cast<std::uint8_t>(dimensions);
    map.address = reinterpret_cast<std::uint64_t>(address);
    if (map.address == 0 || map.address % 16 != 0) {
        return refuse(fmt::format("address {:#x} is not aligned to 16 bytes", map.address));
    }
    for (cuuint32_t i = 0; i < dimensions; ++i) {
        if (sizes[i] == 0 || sizes[i] > cuuint64_t{1} << 32) return refuse(fmt::format("size {}: {}", i, sizes[i]));
        map.sizes[i] = sizes[i];
        if (box[i] == 0 || box[i] > 256) return refuse(fmt::format("box {}: {}", i, box[i]));
        map.box[i] = static_cast<std::uint16_t>(box[i]);
        if (steps[i] != 1) return refuse("element strides are not emulated", CUDA_ERROR_NOT_SUPPORTED);
        if (i + 1 == dimensions) continue;
        if (strides[i] % 16 != 0 || strides[i] >= cuuint64_t{1} << 40) {
            return refuse(fmt::format("stride {}: {} is no multiple of 16 below 2^40", i + 1, strides[i]));
        }
        map.strides[i] = strides[i];
    }
    const unsigned row_bytes = box[0] * bytes;
    if (row_bytes % 16 != 0) return refuse(fmt::format("box 0: {} bytes are no multiple of 16", row_bytes));
    if (span != 0 && row_bytes > static_cast<unsigned>(span)) {
        return refuse(fmt::format("box 0: {} bytes are more than the swizzle's {}", row_bytes, span));
    }
    if (span != 0 && row_bytes != static_cast<unsigned>(span)) {
        return refuse("boxes narrower than their swizzle are not emulated", CUDA_ERROR_NOT_SUPPORTED);
    }
    std::memset(encoded, 0, sizeof(*encoded));
    std::memcpy(encoded, &map, sizeof(map));
    return CUDA_SUCCESS;
}
