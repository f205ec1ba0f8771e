// How frozen weights are stored: plain, or in one of the formats of quantised checkpoints.
#pragma once

#include <smlora/dtype.hpp>
#include <smlora/export.hpp>

#include <cstdint>
#include <string>
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

/// All of a weight but its extents and its memory: what kernels are specialised for. See Weight for the members.
struct WeightFormat {
    Encoding encoding = Encoding::plain;
    DType scales = DType::fp32;    ///< type of the scales; uint8 if they are quantised themselves. plain: not looked at
    std::int64_t block = 0;        ///< values that share a scale. plain, int8: not looked at
    std::int64_t parts = 1;        ///< equal ranges of rows that were quantised apart
    std::int64_t outer_block = 0;  ///< nf4, fp4: scales that share a scale of their own; 0: scales are not quantised
    GlobalScale global_scale = GlobalScale::factor;  ///< nvfp4
    bool arranged = false;                           ///< whether scales are in the order of arrange_scales

    /// Member by member.
    friend bool operator==(const WeightFormat&, const WeightFormat&) = default;
};

/// The format of an encoding as its usual maker writes it: block 64 for nf4 and fp4, 128 for fp8, 32 for int4, and the
/// only one elsewhere; scales of e8m0 for mxfp4 and mxfp8, e4m3 for nvfp4, bf16 for int4, else fp32.
[[nodiscard]] SMLORA_API WeightFormat usual_format(Encoding encoding);

/// The type of scales that weights of this encoding usually have, where they are arranged as they are here.
[[nodiscard]] SMLORA_API DType usual_scales(const WeightFormat& format);

/// "plain"; "nf4 block 64"; "nf4 block 64 double 256"; "fp8 block 128 bf16 parts 2"; "nvfp4 divisor"; "mxfp4 arranged".
[[nodiscard]] SMLORA_API std::string to_string(const WeightFormat& format);

}  // namespace smlora
