#include "gpu/tensor_map.hpp"

#include "gpu/driver.hpp"

#include <cstring>

namespace smlora::gpu {

TensorMap tensor_map(const BoxedView& view, DType dtype) {
    const auto count = [](std::int64_t n) { return static_cast<cuuint64_t>(n); };
    const std::array<cuuint64_t, 3> shape{count(view.shape[2]), count(view.shape[1]), count(view.shape[0])};
    const std::array<cuuint64_t, 2> strides{count(view.middle_stride * 2), count(view.outer_stride * 2)};
    const std::array<cuuint32_t, 3> box{static_cast<cuuint32_t>(view.box_inner),
                                        static_cast<cuuint32_t>(view.box_middle), 1};
    const std::array<cuuint32_t, 3> steps{1, 1, 1};
    const CUtensorMapSwizzle swizzle = view.box_inner == 64   ? CU_TENSOR_MAP_SWIZZLE_128B
                                       : view.box_inner == 32 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                              : CU_TENSOR_MAP_SWIZZLE_32B;
    CUtensorMap encoded{};
    SMLORA_CUDA(cuTensorMapEncodeTiled, &encoded,
                dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3,
                const_cast<void*>(view.data), shape.data(), strides.data(), box.data(), steps.data(),
                CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    TensorMap map;
    static_assert(sizeof(map) == sizeof(encoded));
    std::memcpy(&map, &encoded, sizeof(map));
    return map;
}

}  // namespace smlora::gpu
