#include "cpu/decode.hpp"

#include "cpu/convert.hpp"
#include "cpu/elements.hpp"
#include "scale_order.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace smlora::cpu {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

constexpr std::array<float, 16> e2m1{0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                     -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

/// 2^(bits - 127); 255 is NaN as e8m0, and 2^128, which fp32 has as infinity, as a plain byte.
float from_e8m0(std::uint8_t bits, DType dtype) {
    return dtype == DType::e8m0 && bits == 255 ? nan : std::ldexp(1.0F, bits - 127);
}

float from_dtype(const Tensor& tensor, std::int64_t index) {
    const auto bits = [&] { return static_cast<const std::uint8_t*>(tensor.data)[index]; };
    switch (tensor.dtype) {
        case DType::e4m3:
            return from_e4m3(bits());
        case DType::e8m0:
        case DType::uint8:
            return from_e8m0(bits(), tensor.dtype);
        default: {
            float value = 0;
            load_row(element_at(tensor.data, tensor.dtype, index), tensor.dtype, 1, &value);
            return value;
        }
    }
}

float rounded_to(DType dtype, float value) {
    if (dtype == DType::bf16) return to_float(to_bf16(value));
    if (dtype == DType::fp16) return to_float(to_fp16(value));
    return value;
}

bool is_nibbles(Encoding encoding) {
    return encoding == Encoding::nf4 || encoding == Encoding::fp4 || encoding == Encoding::mxfp4 ||
           encoding == Encoding::nvfp4 || encoding == Encoding::int4;
}

/// The value of a code whose bits, as an unsigned number, are `code`.
float value_of(const Weight& weight, int code) {
    switch (weight.encoding) {
        case Encoding::nf4:
        case Encoding::fp4:
            return static_cast<const float*>(weight.table.data)[code % 16];
        case Encoding::int8:
            return static_cast<float>(static_cast<std::int8_t>(code));
        case Encoding::mxfp4:
            // With half the scale: code times 2^128 is finite for half of the codes.
            return 2 * e2m1[static_cast<std::size_t>(code % 16)];
        case Encoding::nvfp4:
            return e2m1[static_cast<std::size_t>(code % 16)];
        case Encoding::fp8:
        case Encoding::mxfp8:
            return from_e4m3(static_cast<std::uint8_t>(code));
        case Encoding::int4:
            return static_cast<float>(code % 16 - 8);
        case Encoding::plain:
            break;
    }
    return 0;
}

}  // namespace

float from_e4m3(std::uint8_t bits) {
    const int exponent = (bits >> 3) & 15;
    const int mantissa = bits & 7;
    const float magnitude = (bits & 0x7f) == 0x7f ? nan
                            : exponent == 0       ? std::ldexp(static_cast<float>(mantissa), -9)
                                                  : std::ldexp(static_cast<float>(mantissa + 8), exponent - 10);
    return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

RowDecoder::RowDecoder(const Weight& weight) : weight_(weight), arranged_(format_of(weight).arranged) {
    for (int code = 0; code < 256; ++code) values_[static_cast<std::size_t>(code)] = value_of(weight, code);
}

int RowDecoder::code(std::int64_t index) const {
    const auto* bytes = static_cast<const std::uint8_t*>(weight_.codes.data);
    if (!is_nibbles(weight_.encoding)) return bytes[index];
    const bool high_first = weight_.encoding == Encoding::nf4 || weight_.encoding == Encoding::fp4;
    const bool high = (index % 2 == 0) == high_first;
    return high ? bytes[index / 2] >> 4 : bytes[index / 2] & 15;
}

float RowDecoder::block_scale(std::int64_t index) const {
    const DoubleQuantization& outer = weight_.double_quantization;
    if (!outer.given()) return static_cast<const float*>(weight_.scales.data)[index];
    const auto* table = static_cast<const float*>(outer.table.data);
    const float inner = table[static_cast<const std::uint8_t*>(weight_.scales.data)[index]];
    // Two roundings, also where the compiler could have one.
    const volatile float product = inner * static_cast<const float*>(outer.scales.data)[index / outer.block];
    return product + *static_cast<const float*>(outer.offset.data);
}

std::int64_t RowDecoder::scale_index(std::int64_t expert, std::int64_t row, std::int64_t column) const {
    if (arranged_) {
        const auto number = [](std::int64_t value) { return static_cast<int>(value); };
        return weight::arranged_index(scale_order(format_of(weight_)), number(expert), number(row), number(column),
                                      number(weight_.rows), number(weight_.columns));
    }
    return (expert * weight_.rows + row) * (weight_.columns / weight_.block) + column / weight_.block;
}

float RowDecoder::scale(std::int64_t expert, std::int64_t row, std::int64_t column) const {
    const std::int64_t line = expert * weight_.rows + row;
    const std::int64_t part_rows = weight_.rows / weight_.parts;
    switch (weight_.encoding) {
        case Encoding::nf4:
        case Encoding::fp4:
            if (arranged_) return from_dtype(weight_.scales, scale_index(expert, row, column));
            return block_scale((line * weight_.columns + column) / weight_.block);
        case Encoding::int8:
            return static_cast<const float*>(weight_.scales.data)[line];
        case Encoding::mxfp4: {
            const auto bits = static_cast<const std::uint8_t*>(weight_.scales.data)[scale_index(expert, row, column)];
            return weight_.scales.dtype == DType::e8m0 && bits == 255 ? nan : std::ldexp(1.0F, bits - 128);
        }
        case Encoding::fp8: {
            if (arranged_) return from_dtype(weight_.scales, scale_index(expert, row, column));
            const std::int64_t blocks = (weight_.columns + weight_.block - 1) / weight_.block;
            const std::int64_t part_blocks = (part_rows + weight_.block - 1) / weight_.block;
            const std::int64_t block_row = row / part_rows * part_blocks + row % part_rows / weight_.block;
            return from_dtype(weight_.scales,
                              (expert * weight_.parts * part_blocks + block_row) * blocks + column / weight_.block);
        }
        case Encoding::nvfp4: {
            const float inner = from_dtype(weight_.scales, scale_index(expert, row, column));
            const Tensor& global = weight_.global_scales;
            const float outer = static_cast<const float*>(
                global.data)[expert * global.strides[0] + row / part_rows * global.strides[1]];
            return weight_.global_scale == GlobalScale::factor ? outer * inner : inner / outer;
        }
        case Encoding::mxfp8:
        case Encoding::int4:
            return from_dtype(weight_.scales, scale_index(expert, row, column));
        case Encoding::plain:
            break;
    }
    return 1;
}

void RowDecoder::decode(std::int64_t expert, std::int64_t row, std::int64_t column, std::int64_t count,
                        float* values) const {
    const std::int64_t columns = weight_.columns;
    const std::int64_t first = (expert * weight_.rows + row) * columns;
    // A scale holds up to the next multiple of the block, in the order in which blocks are counted.
    const bool flat = weight_.encoding == Encoding::nf4 || weight_.encoding == Encoding::fp4;
    const std::int64_t block = weight_.encoding == Encoding::int8 ? columns : weight_.block;
    for (std::int64_t begin = column; begin < column + count;) {
        const std::int64_t counted = flat ? first + begin : begin;
        const std::int64_t end = std::min(column + count, begin + block - counted % block);
        const float s = scale(expert, row, begin);
        for (std::int64_t c = begin; c < end; ++c) {
            const float value = values_[static_cast<std::size_t>(code(first + c))] * s;
            values[c - column] = weight_.encoding == Encoding::int8   ? value * (1.0F / 127)
                                 : weight_.encoding == Encoding::int4 ? rounded_to(weight_.scales.dtype, value)
                                                                      : value;
        }
        begin = end;
    }
}

}  // namespace smlora::cpu
