// Frozen expert weights as checkpoints store them: plain, or quantised and never rewritten.
#pragma once

#include <smlora/encoding.hpp>
#include <smlora/engine.hpp>
#include <smlora/export.hpp>
#include <smlora/tensor.hpp>

#include <array>
#include <cstdint>

namespace smlora {

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
    /// [E, rows, C / B]. Or arranged, in four dimensions: see arrange_scales.
    Tensor scales;
    Tensor table;                                    ///< nf4, fp4: fp32 [16], the values of the codes
    DoubleQuantization double_quantization;          ///< nf4, fp4: optional
    Tensor global_scales;                            ///< nvfp4: fp32 [E, parts], any strides, also 0
    GlobalScale global_scale = GlobalScale::factor;  ///< nvfp4: what they do
};

/// Throws Error{invalid_argument} that names the field, its value and what was expected.
SMLORA_API void validate(const Weight& weight);

/// What the problem of an operation that is given this weight has in `weights`.
[[nodiscard]] SMLORA_API WeightFormat format_of(const Weight& weight);

/// The arguments of dequantize.
struct DequantizeArgs {
    Weight W;    ///< in, quantised
    Tensor out;  ///< out [E, rows, columns], contiguous, of bf16, fp16 or fp32
};

/// out = the values of the weight: the bits that the library which made it decodes them to.
SMLORA_API void dequantize(const Engine& engine, Stream stream, const DequantizeArgs& args);

/// The arguments of arrange_scales.
struct ArrangeScalesArgs {
    /// in: mxfp4, mxfp8, nvfp4; nf4, fp4 and fp8 of a block that is a multiple of 64, which for nf4 and fp4 divides
    /// columns; int4 of bf16 scales and a block of 32 or a multiple of 64. If nvfp4 or fp8 has more than one part, each
    /// has a multiple of 64 rows.
    Weight W;
    Tensor out;  ///< out, of arranged_shape and the type of arranged_format, contiguous, 16-byte aligned
};

/// Puts scales into the order in which products take them. A weight that has them in the place of its scales
/// is decoded by bf16 products on tensor cores while they multiply it, without scratch memory for plain weights; everything
/// else gives the same as before. Scales of nf4 and fp4 that are quantised themselves are decoded, so that the weight
/// has no double_quantization any more. Done once, when a weight is loaded: it waits for the stream. Throws
/// Error{invalid_argument}, and leaves `out` unspecified, if such products have no room for a scale (mxfp4: above 128,
/// a factor of 2; mxfp8: above 134, a factor of 128; nvfp4: NaN, or a global one out of 2^-80 to 2^80 that is not 0 as
/// a factor, or one of 2 in 100,000 in between; fp8: out of 2^-80 to 2^8 and not 0) or for a code (mxfp8, fp8: NaN).
///
/// out[e, i, j] has the scales of rows 64 i to 64 i + 63 and columns 64 j to 64 j + 63, and 0 where there are none. For
/// mxfp4 and mxfp8, out[e, i, j, 2 r + b] is that of row 64 i + r and of its columns 64 j + 32 b on; for int4, nvfp4,
/// nf4 and fp4 it is out[e, i, j, 64 b + r], of columns 64 j + min(block, 64) b on; for fp8 it is out[e, i, j, 0].
/// Behind them, nvfp4 and fp8 have a word for the products, and zeros.
SMLORA_API void arrange_scales(const Engine& engine, Stream stream, const ArrangeScalesArgs& args);

/// The format of a weight of this one once its scales are arranged: `scales` is the type of ArrangeScalesArgs::out,
/// bf16 for nvfp4, fp32 for nf4, fp4 and fp8, for others that of the scales; outer_block is 0. The same format, not
/// arranged, if its scales cannot be.
[[nodiscard]] SMLORA_API WeightFormat arranged_format(const WeightFormat& format);

/// The shape of ArrangeScalesArgs::out: [E, rows' / 64, columns' / 64, elements for 64 x 64 values], where rows' and
/// columns' are rounded up to 256; the last is 0 for formats whose scales cannot be arranged.
[[nodiscard]] SMLORA_API std::array<std::int64_t, 4> arranged_shape(const WeightFormat& format, std::int64_t E,
                                                                    std::int64_t rows, std::int64_t columns);

}  // namespace smlora
