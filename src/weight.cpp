#include "scale_order.hpp"

#include <smlora/weight.hpp>

namespace smlora {

WeightFormat format_of(const Weight& weight) {
    if (weight.encoding == Encoding::plain) return {};
    const bool by_row = weight.encoding == Encoding::int8;
    WeightFormat format{
        .encoding = weight.encoding,
        .scales = weight.scales.dtype,
        .block = by_row ? 0 : weight.block,
        .parts = weight.parts,
        .outer_block = weight.double_quantization.given() ? weight.double_quantization.block : 0,
        .global_scale = weight.encoding == Encoding::nvfp4 ? weight.global_scale : GlobalScale::factor,
    };
    format.arranged = weight.scales.ndim == 4 && scale_order(format).in_row > 0;
    return format;
}

WeightFormat arranged_format(const WeightFormat& format) {
    WeightFormat arranged = format;
    if (scale_order(format).in_row == 0) return arranged;
    arranged.arranged = true;
    arranged.outer_block = 0;
    if (format.encoding == Encoding::nvfp4) arranged.scales = DType::bf16;
    if (format.encoding == Encoding::nf4 || format.encoding == Encoding::fp4 || format.encoding == Encoding::fp8) {
        arranged.scales = DType::fp32;
    }
    return arranged;
}

std::array<std::int64_t, 4> arranged_shape(const WeightFormat& format, std::int64_t E, std::int64_t rows,
                                           std::int64_t columns) {
    const auto blocks = [](std::int64_t length) {
        return (length + weight::scale_padding - 1) / weight::scale_padding *
               (weight::scale_padding / weight::scale_block);
    };
    return {E, blocks(rows), blocks(columns), scale_order(format).in_row == 0 ? 0 : scale_order(format).count()};
}

}  // namespace smlora
