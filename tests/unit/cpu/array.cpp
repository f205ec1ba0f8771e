#include "unit/cpu/array.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace smlora::test {
namespace {

constexpr auto poison_byte = std::byte{0xff};  // NaN in every floating-point format, -1 in integers

double from_bits(std::uint32_t bits, int exponent_bits, int mantissa_bits) {
    const std::uint32_t mantissa = bits & ((1U << mantissa_bits) - 1);
    const std::uint32_t exponent = (bits >> mantissa_bits) & ((1U << exponent_bits) - 1);
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const double sign = (bits >> (exponent_bits + mantissa_bits)) & 1U ? -1.0 : 1.0;
    if (exponent == (1U << exponent_bits) - 1) {
        return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                             : sign * std::numeric_limits<double>::infinity();
    }
    if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * std::ldexp(mantissa + (1U << mantissa_bits), static_cast<int>(exponent) - bias - mantissa_bits);
}

/// The value must be one of the format, not NaN.
std::uint16_t to_bits(double value, int exponent_bits, int mantissa_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const std::uint32_t sign = std::signbit(value) ? 1U << 15 : 0U;
    const double magnitude = std::fabs(value);
    std::uint32_t rest = 0;
    if (std::isinf(magnitude)) {
        rest = ((1U << exponent_bits) - 1) << mantissa_bits;
    } else if (magnitude > 0) {
        const int exponent = std::max(std::ilogb(magnitude), 1 - bias);
        // A denormal number has no leading one, and then nothing is added to the exponent field 0.
        const auto scaled = static_cast<std::uint32_t>(std::ldexp(magnitude, mantissa_bits - exponent));
        rest = scaled + (static_cast<std::uint32_t>(exponent + bias - 1) << mantissa_bits);
    }
    return static_cast<std::uint16_t>(sign | rest);
}

}  // namespace

double round_to_format(double value, int bits, int lowest, double largest) {
    if (value == 0 || !std::isfinite(value)) return value;
    const int unit = std::max(std::ilogb(value), lowest) - bits + 1;
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
    return std::fabs(rounded) > largest ? std::copysign(std::numeric_limits<double>::infinity(), value) : rounded;
}

double round_to(double value, DType dtype) {
    switch (dtype) {
        case DType::bf16:
            return round_to_format(value, 8, -126, 0x1.fep127);
        case DType::fp16:
            return round_to_format(value, 11, -14, 65504);
        case DType::fp32:
            return static_cast<double>(static_cast<float>(value));
        default:
            return value;
    }
}

Array::Array(DType dtype, std::initializer_list<std::int64_t> shape) : view_(nullptr, dtype, shape) { allocate(); }

Array::Array(DType dtype, std::initializer_list<std::int64_t> shape, std::initializer_list<std::int64_t> strides)
    : view_(nullptr, dtype, shape, strides) {
    allocate();
}

void Array::allocate() {
    std::size_t elements = view_.numel() == 0 ? 0 : 1;
    for (std::size_t d = 0; d < 3 && elements > 0; ++d) {
        if (view_.shape[d] > 1) elements += static_cast<std::size_t>((view_.shape[d] - 1) * view_.strides[d]);
    }
    // The stride of a single row stands for memory too: rank rows are padded up to it.
    if (view_.ndim == 2 && elements > 0) {
        elements = std::max(elements, static_cast<std::size_t>(view_.shape[0] * view_.strides[0]));
    }
    memory_.resize(elements * size_of(view_.dtype));
    view_.data = memory_.data();
    poison();
}

void Array::poison() { std::fill(memory_.begin(), memory_.end(), poison_byte); }

std::size_t Array::offset(std::int64_t i, std::int64_t j, std::int64_t k) const {
    const std::int64_t element = i * view_.strides[0] + j * view_.strides[1] + k * view_.strides[2];
    const std::size_t offset = static_cast<std::size_t>(element) * size_of(view_.dtype);
    if (offset >= memory_.size()) throw std::out_of_range("element outside the array");
    return offset;
}

double Array::at(std::int64_t i, std::int64_t j, std::int64_t k) const {
    const std::byte* source = memory_.data() + offset(i, j, k);
    std::uint16_t half = 0;
    float single = 0;
    double value = 0;
    switch (view_.dtype) {
        case DType::bf16:
            std::memcpy(&half, source, 2);
            return from_bits(half, 8, 7);
        case DType::fp16:
            std::memcpy(&half, source, 2);
            return from_bits(half, 5, 10);
        case DType::fp32:
            std::memcpy(&single, source, 4);
            return static_cast<double>(single);
        case DType::fp64:
            std::memcpy(&value, source, 8);
            return value;
        default:
            return static_cast<double>(integer(i, j));
    }
}

void Array::set(double value, std::int64_t i, std::int64_t j, std::int64_t k) {
    std::byte* target = memory_.data() + offset(i, j, k);
    const double rounded = round_to(value, view_.dtype);
    const auto single = static_cast<float>(rounded);
    std::uint16_t half = 0;
    switch (view_.dtype) {
        case DType::bf16:
            half = to_bits(rounded, 8, 7);
            std::memcpy(target, &half, 2);
            break;
        case DType::fp16:
            half = to_bits(rounded, 5, 10);
            std::memcpy(target, &half, 2);
            break;
        case DType::fp32:
            std::memcpy(target, &single, 4);
            break;
        case DType::fp64:
            std::memcpy(target, &rounded, 8);
            break;
        default:
            set_integer(static_cast<std::int64_t>(value), i, j);
    }
}

std::int64_t Array::integer(std::int64_t i, std::int64_t j) const {
    const std::byte* source = memory_.data() + offset(i, j, 0);
    std::int32_t narrow = 0;
    std::int64_t wide = 0;
    if (view_.dtype == DType::int64) {
        std::memcpy(&wide, source, 8);
        return wide;
    }
    std::memcpy(&narrow, source, 4);
    return narrow;
}

void Array::set_integer(std::int64_t value, std::int64_t i, std::int64_t j) {
    std::byte* target = memory_.data() + offset(i, j, 0);
    const auto narrow = static_cast<std::int32_t>(value);
    if (view_.dtype == DType::int64) {
        std::memcpy(target, &value, 8);
    } else {
        std::memcpy(target, &narrow, 4);
    }
}

void Array::randomize(std::mt19937_64& random, double deviation) {
    std::normal_distribution<double> normal(0.0, deviation);
    for (std::int64_t i = 0; i < view_.shape[0]; ++i) {
        for (std::int64_t j = 0; j < view_.shape[1]; ++j) {
            for (std::int64_t k = 0; k < (view_.ndim > 2 ? view_.shape[2] : 1); ++k) set(normal(random), i, j, k);
        }
    }
}

std::vector<double> Array::values() const {
    std::vector<double> all;
    for (std::int64_t i = 0; i < view_.shape[0]; ++i) {
        for (std::int64_t j = 0; j < (view_.ndim > 1 ? view_.shape[1] : 1); ++j) {
            for (std::int64_t k = 0; k < (view_.ndim > 2 ? view_.shape[2] : 1); ++k) all.push_back(at(i, j, k));
        }
    }
    return all;
}

bool Array::gaps_untouched() const {
    std::vector<bool> covered(memory_.size());
    for (std::int64_t i = 0; i < view_.shape[0]; ++i) {
        for (std::int64_t j = 0; j < (view_.ndim > 1 ? view_.shape[1] : 1); ++j) {
            for (std::int64_t k = 0; k < (view_.ndim > 2 ? view_.shape[2] : 1); ++k) {
                const std::size_t start = offset(i, j, k);
                for (std::size_t b = 0; b < size_of(view_.dtype); ++b) covered[start + b] = true;
            }
        }
    }
    for (std::size_t b = 0; b < memory_.size(); ++b) {
        if (!covered[b] && memory_[b] != poison_byte) return false;
    }
    return true;
}

double relative_error(const std::vector<double>& got, const std::vector<double>& expected) {
    if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
    double difference = 0;
    double norm = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return std::sqrt(norm > 0 ? difference / norm : difference);
}

}  // namespace smlora::test
