#include <smlora/weight.hpp>

namespace smlora {

WeightFormat format_of(const Weight& weight) {
    if (weight.encoding == Encoding::plain) return {};
    const bool by_row = weight.encoding == Encoding::int8;
    return {.encoding = weight.encoding,
            .scales = weight.scales.dtype,
            .block = by_row ? 0 : weight.block,
            .parts = weight.parts,
            .outer_block = weight.double_quantization.given() ? weight.double_quantization.block : 0,
            .global_scale = weight.encoding == Encoding::nvfp4 ? weight.global_scale : GlobalScale::factor,
            .arranged = weight.encoding == Encoding::mxfp4 && weight.scales.ndim == 4};
}

}  // namespace smlora
