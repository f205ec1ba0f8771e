// A factor of fp32 as the sum of two bf16, made once by the host or a kernel. A code x of few bits is decoded as
// bf16(x high + bf16(x low)), in two instructions; `low` is such that this is bf16(fp32(x factor)), the value that the
// format defines, for every code.
#pragma once

namespace smlora::weight {

/// Rounded to the 8 bits of bf16, to nearest even; the exponent is any that fp64 has.
constexpr double rounded_to_bf16(double value) {
    constexpr int dropped = 52 - 7;
    constexpr unsigned long long unit = 1ULL << dropped;
    const auto bits = __builtin_bit_cast(unsigned long long, value);
    const unsigned long long up = unit / 2 - 1 + (bits >> dropped & 1);
    return value == 0 ? value : __builtin_bit_cast(double, (bits + up) & ~(unit - 1));
}

/// The bits of a number that is one of bf16, normal or 0.
constexpr unsigned bf16_bits(double value) { return __builtin_bit_cast(unsigned, static_cast<float>(value)) >> 16; }

struct Split {
    double high;
    double low;
    bool found;

    /// Times `power`, a power of two that leaves both in bf16's range: `high` in the lower half.
    [[nodiscard]] constexpr unsigned word(double power) const {
        return bf16_bits(high * power) | bf16_bits(low * power) << 16;
    }
};

/// `fits(high, low)`: whether they decode every code right. Tried are the nearest `low` and 64 around it.
template <class Fits>
constexpr Split split_near(double factor, Fits fits) {
    const double high = rounded_to_bf16(factor);
    const double nearest = rounded_to_bf16(factor - high);
    const double step = high / (1 << 18);
    for (int i = 0; i <= 64; ++i) {
        const double low = rounded_to_bf16(nearest + (i % 2 != 0 ? -step : step) * ((i + 1) / 2));
        if (fits(high, low)) return {high, low, true};
    }
    return {0, 0, false};
}

/// What codes are decoded to, and what they should be.
constexpr bool decodes(double code, double high, double low, float wanted) {
    return rounded_to_bf16(code * high + rounded_to_bf16(code * low)) == rounded_to_bf16(wanted);
}

/// Whether powers of two change nothing but the exponent of what is computed with the factor.
constexpr bool has_room(double factor, double below) {
    const double magnitude = factor < 0 ? -factor : factor;
    return magnitude >= 0x1p-80 && rounded_to_bf16(magnitude) < below;
}

/// Of a scale of codes e4m3. `found` for each fp32 that is 0 or from 2^-80 to below 2^8: all 2^23 mantissas were tried.
constexpr Split split_of_e4m3_scale(float scale) {
    if (scale == 0) return {scale, scale, true};
    if (!has_room(scale, 0x1p8)) return {0, 0, false};
    return split_near(scale, [&](double high, double low) {
        for (int code = 8; code < 16; ++code) {  // all mantissas
            if (!decodes(code, high, low, static_cast<float>(code) * scale)) return false;
        }
        return true;
    });
}

/// Of nvfp4's outer scale, by which codes e2m1 times a scale e4m3 are multiplied or divided: see unpack_weights.cuh.
/// `found` for all but 2 of 100,000 from 2^-80 to 2^80.
constexpr Split split_of_outer_scale(float outer, bool divides) {
    const double factor = divides ? 1.0 / outer : outer;
    if (outer == 0 && !divides) return {outer, outer, true};
    if (!has_room(outer, 0x1p80)) return {0, 0, false};
    return split_near(factor, [&](double high, double low) {
        for (int scale = 8; scale < 16; ++scale) {
            const float exact = static_cast<float>(scale);
            const float rounded = divides ? exact / outer : outer * exact;
            for (int code = 2; code < 4; ++code) {
                if (!decodes(code * scale, high, low, static_cast<float>(code) * rounded)) return false;
            }
        }
        return true;
    });
}

/// Powers of two that a factor's word carries: those that decoded codes lack.
inline constexpr double e4m3_power = 0x1p120;  // weight/e4m3.cuh
inline constexpr double nvfp4_power = 0x1p7;   // weight/nvfp4.cuh

}  // namespace smlora::weight
