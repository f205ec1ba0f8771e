#include "families/packed.hpp"

#include "args/permute_rows.h"
#include "families/row_step.hpp"
#include "families/tensor_layout.hpp"
#include "families/type_names.hpp"
#include "scale_order.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

namespace smlora::families {

bool can_multiply_codes(const Problem& problem) {
    // Rows are permuted in 32 columns each; with them, rows of codes are a multiple of 16 bytes.
    const std::int64_t columns = problem.weight_layout == WeightLayout::enk ? problem.K : problem.N;
    return problem.weights.arranged && problem.dtype == DType::bf16 && columns % 32 == 0;
}

int code_bits(const WeightFormat& format) { return unpack_weights::code_bits(static_cast<int>(format.encoding)); }

std::string decoded_format(const WeightFormat& format) {
    switch (format.encoding) {
        case Encoding::mxfp4:
            return "smlora::weight::Mxfp4";
        case Encoding::mxfp8:
            return "smlora::weight::Mxfp8";
        case Encoding::nvfp4:
            return "smlora::weight::Nvfp4";
        case Encoding::fp8:
            return "smlora::weight::Fp8";
        case Encoding::nf4:
        case Encoding::fp4:
            return "smlora::weight::Table4";
        case Encoding::int4:
            return fmt::format("smlora::weight::Int4<{}>", scale_order(format).columns_of_scale());
        case Encoding::plain:
        case Encoding::int8:
            break;
    }
    throw Error(ErrorCode::internal, fmt::format("no product decodes {}", to_string(format)));
}

double packed_bytes_of_value(const WeightFormat& format) {
    constexpr double values = weight::scale_block * weight::scale_block;
    return code_bits(format) / 8.0 + scale_order(format).block_bytes() / values;
}

PackedScales arranged_scales(const ProductWork& work, const void* data) {
    const Product& product = work.product;
    const bool out_contiguous = product.weight_out_contiguous;
    const auto rows = static_cast<int>(out_contiguous ? product.red : product.out);
    const auto columns = static_cast<int>(out_contiguous ? product.out : product.red);
    PackedScales scales{};
    scales.data = data;
    scales.row_stride = std::int64_t{weight::scale_blocks(columns)} * scale_order(work.problem.weights).block_bytes();
    scales.expert_stride = std::int64_t{weight::scale_blocks(rows)} * scales.row_stride;
    return scales;
}

Step permute_step(const Problem& problem, std::int64_t columns) {
    return row_step(
        "permute_rows",
        {{"WIDTH", columns}, {"CODE_BITS", code_bits(problem.weights)}, {"Element", type_name(problem.dtype)}});
}

Tensor permuted_rows(const Launcher& launcher, const Step* step, const Tensor& rows, void* memory) {
    if (step == nullptr) return rows;
    const std::int64_t count = rows.shape[0];
    launcher.launch_rows(*step, count, PermuteRowsArgs{rows.data, row_stride(rows), memory, static_cast<int>(count)});
    return {memory, rows.dtype, {count, rows.shape[1]}};
}

}  // namespace smlora::families
