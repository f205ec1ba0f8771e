#include "families/type_names.hpp"

#include "describe.hpp"

#include <smlora/error.hpp>

namespace smlora::families {

const char* type_name(DType dtype) {
    switch (dtype) {
        case DType::bf16:
            return "smlora::bf16";
        case DType::fp16:
            return "smlora::fp16";
        case DType::fp32:
            return "float";
        case DType::int32:
            return "int";
        case DType::int64:
            return "long long";
        case DType::uint8:
            return "smlora::byte";
        case DType::e4m3:
            return "smlora::e4m3";
        case DType::e8m0:
            return "smlora::e8m0";
        case DType::fp64:
        case DType::int8:
            break;
    }
    throw Error(ErrorCode::unsupported,
                "dtype: expected bf16, fp16 or fp32 on the CUDA backend, got " + describe(dtype));
}

const char* gate_type_name(const Problem& problem, bool gates) {
    return type_name(gates ? problem.gate_dtype : problem.dtype);
}

}  // namespace smlora::families
