// Frozen expert weights as checkpoints store them: plain, or quantised and never rewritten.
#pragma once

#include <smlora/dtype.hpp>
#include <smlora/engine.hpp>
#include <smlora/export.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <string_view>

namespace smlora {

/// How the values of a weight are stored. Below, s is the scale of a code in fp32, and e2m1 and e4m3 stand for the
/// value of a code of those types (1 sign bit, 2 or 4 of exponent, 1 or 3 of mantissa). Products, quotients and sums
/// are rounded to fp32 in the order in which they are written, and the result to the type asked for. This gives the
/// bits of the library that made the weight. A nibble is half a byte.
enum class Encoding : std::int32_t {
    plain = 0,  ///< the values themselves
    nf4 = 1,    ///< bitsandbytes: table[code] s; the high nibble comes first
    fp4 = 2,    ///< bitsandbytes: as nf4, with another table
    int8 = 3,   ///< bitsandbytes, a scale for each row: (code s) / 127, the quotient as a product with fp32's 1 / 127
    mxfp4 = 4,  ///< OCP: e2m1 2^(scale - 127); the low nibble comes first
    fp8 = 5,    ///< e4m3 s, a scale for each square of block x block
    mxfp8 = 6,  ///< OCP: e4m3 2^(scale - 127)
    nvfp4 = 7,  ///< e2m1 s with s = global e4m3 or e4m3 / global, see GlobalScale; the low nibble comes first
    int4 = 8,   ///< compressed-tensors: (code - 8) s, rounded to the scale's type first; the lowest nibble comes first
};

/// "plain", "nf4", "fp4", "int8", "mxfp4", "fp8", "mxfp8", "nvfp4", "int4".
[[nodiscard]] SMLORA_API std::string_view name(Encoding encoding);

/// The inverse of name(). Throws Error{invalid_argument}.
[[nodiscard]] SMLORA_API Encoding encoding_from_name(std::string_view text);

/// What nvfp4's fp32 scale does to the e4m3 one.
enum class GlobalScale : std::int32_t {
    factor = 0,   ///< torchao, modelopt
    divisor = 1,  ///< compressed-tensors
};

/// Scales of nf4 and fp4 that are quantised themselves (bitsandbytes' double quantisation):
/// s = table[code] scales[i / block] + offset for the i-th code.
struct DoubleQuantization {
    Tensor scales;           ///< fp32 [ceil(codes / block)]
    Tensor table;            ///< fp32 [256]
    Tensor offset;           ///< fp32 [1]
    std::int64_t block = 0;  ///< codes that share a scale, at least 1

    /// Whether scales are quantised at all.
    [[nodiscard]] bool given() const noexcept { return scales.given(); }
};

/// A frozen weight [E, rows, columns], columns contiguous: rows are N and columns K with WeightLayout::enk, the other
/// way round with ekn. All tensors are contiguous views of the caller's memory but for global_scales and the codes of
/// plain weights; nothing is ever written. C below stands for columns, B for block.
struct Weight {
    Weight() = default;

    /// A plain weight of values [E, rows, columns].
    Weight(const Tensor& values) : codes(values) {  // NOLINT(google-explicit-constructor): a tensor is a weight
        if (values.ndim != 3) return;
        E = values.shape[0];
        rows = values.shape[1];
        columns = values.shape[2];
    }

    Encoding encoding = Encoding::plain;  ///< of the codes
    std::int64_t E = 0;                   ///< experts
    std::int64_t rows = 0;                ///< of each expert's matrix
    std::int64_t columns = 0;             ///< values that a row has, contiguous
    /// Values along a row that share a scale. nf4, fp4: a power of two from 32 to 4096, counted along all values in
    /// their order, so that a block may go on in the next row. mxfp4, mxfp8: 32; nvfp4: 16; int4: even; these divide C.
    /// fp8: 1 or more, a square of B columns and B rows. int8, plain: not looked at.
    std::int64_t block = 0;
    /// Equal ranges of rows that were quantised apart, such as gate and up of a fused projection: each has blocks (fp8)
    /// and a global scale (nvfp4) of its own. Divides rows.
    std::int64_t parts = 1;

    /// plain: [E, rows, C], any expert stride. nf4, fp4: uint8, ceil(E rows C / 2) in any shape. int8: int8
    /// [E, rows, C]. mxfp4: uint8 or int8, [E, rows, C / 2] or [E, rows, C / 32, 16]. fp8, mxfp8: e4m3 [E, rows, C].
    /// nvfp4: uint8 [E, rows, C / 2]. int4: uint8 [E, rows, C / 2] or int32 [E, rows, C / 8].
    Tensor codes;
    /// nf4, fp4: fp32, or uint8 with double_quantization, [ceil(E rows C / B)]. int8: fp32 [E, rows]. mxfp4, mxfp8:
    /// uint8 or e8m0 [E, rows, C / 32]; they differ for 255, which is 2^128 as uint8 and NaN as e8m0. fp8: fp32, bf16
    /// or e8m0 [E, parts ceil(rows / parts / B), ceil(C / B)]. nvfp4: e4m3 [E, rows, C / 16]. int4: bf16, fp16 or fp32
    /// [E, rows, C / B].
    Tensor scales;
    Tensor table;                                    ///< nf4, fp4: fp32 [16], the values of the codes
    DoubleQuantization double_quantization;          ///< nf4, fp4: optional
    Tensor global_scales;                            ///< nvfp4: fp32 [E, parts], any strides, also 0
    GlobalScale global_scale = GlobalScale::factor;  ///< nvfp4: what they do
};

/// Throws Error{invalid_argument} that names the field, its value and what was expected.
SMLORA_API void validate(const Weight& weight);

/// The arguments of dequantize.
struct DequantizeArgs {
    Weight weight;  ///< in, quantised
    Tensor out;     ///< out [E, rows, columns], contiguous, of bf16, fp16 or fp32
};

/// out = the values of the weight: the bits that the library which made it decodes them to.
SMLORA_API void dequantize(const Engine& engine, Stream stream, const DequantizeArgs& args);

}  // namespace smlora
