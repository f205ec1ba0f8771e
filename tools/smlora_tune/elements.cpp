#include "smlora_tune/elements.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace smlora::tool {
namespace {

template <class T>
T load(const void* elements, std::size_t index) {
    T value;
    std::memcpy(&value, static_cast<const unsigned char*>(elements) + index * sizeof(T), sizeof(T));
    return value;
}

template <class T>
void store(void* elements, std::size_t index, T value) {
    std::memcpy(static_cast<unsigned char*>(elements) + index * sizeof(T), &value, sizeof(T));
}

std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }

std::uint16_t to_fp16(float value) {
    const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000U : 0U);
    if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7E00U);
    const float magnitude = std::fabs(value);
    if (magnitude >= 65520.0F) return static_cast<std::uint16_t>(sign | 0x7C00U);
    // Steps of fp16: 2^-24 below the least normal number 2^-14, else 2^-10 of the power of two below.
    int exponent = 0;
    std::frexp(magnitude, &exponent);
    const int step = magnitude < 0x1p-14F ? -24 : exponent - 11;
    const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, -step)));
    // steps holds the leading bit of a normal number; adding it to the exponent field carries it over.
    const auto field = static_cast<std::uint32_t>(step + 24) << 10U;
    return static_cast<std::uint16_t>(sign | (field + steps));
}

float from_fp16(std::uint16_t bits) {
    const auto fraction = static_cast<float>(bits & 0x3FFU);
    const int exponent = (bits >> 10U) & 0x1F;
    float magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024.0F, exponent - 25);
    if (exponent == 31) magnitude = (bits & 0x3FFU) == 0 ? INFINITY : NAN;
    return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

[[noreturn]] void not_floating(DType dtype) {
    throw std::logic_error("expected a floating-point type, got " + std::string(name(dtype)));
}

}  // namespace

void encode(const double* values, std::size_t count, DType dtype, void* elements) {
    switch (dtype) {
        case DType::bf16:
            for (std::size_t i = 0; i < count; ++i) store(elements, i, to_bf16(static_cast<float>(values[i])));
            return;
        case DType::fp16:
            for (std::size_t i = 0; i < count; ++i) store(elements, i, to_fp16(static_cast<float>(values[i])));
            return;
        case DType::fp32:
            for (std::size_t i = 0; i < count; ++i) store(elements, i, static_cast<float>(values[i]));
            return;
        case DType::fp64:
            for (std::size_t i = 0; i < count; ++i) store(elements, i, values[i]);
            return;
        case DType::int32:
        case DType::int64:
            break;
    }
    not_floating(dtype);
}

void decode(const void* elements, std::size_t count, DType dtype, double* values) {
    switch (dtype) {
        case DType::bf16:
            for (std::size_t i = 0; i < count; ++i) {
                values[i] = static_cast<double>(from_bf16(load<std::uint16_t>(elements, i)));
            }
            return;
        case DType::fp16:
            for (std::size_t i = 0; i < count; ++i) {
                values[i] = static_cast<double>(from_fp16(load<std::uint16_t>(elements, i)));
            }
            return;
        case DType::fp32:
            for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<double>(load<float>(elements, i));
            return;
        case DType::fp64:
            for (std::size_t i = 0; i < count; ++i) values[i] = load<double>(elements, i);
            return;
        case DType::int32:
        case DType::int64:
            break;
    }
    not_floating(dtype);
}

std::size_t count_non_finite(const void* elements, std::size_t count, DType dtype) {
    std::size_t found = 0;
    // By the exponent's bits: outputs of gigabytes are looked through this way.
    const auto count_if = [&](auto mask) {
        using Bits = decltype(mask);
        for (std::size_t i = 0; i < count; ++i) found += (load<Bits>(elements, i) & mask) == mask ? 1U : 0U;
    };
    switch (dtype) {
        case DType::bf16:
            count_if(std::uint16_t{0x7F80});
            return found;
        case DType::fp16:
            count_if(std::uint16_t{0x7C00});
            return found;
        case DType::fp32:
            count_if(std::uint32_t{0x7F800000});
            return found;
        case DType::fp64:
            count_if(std::uint64_t{0x7FF0000000000000});
            return found;
        case DType::int32:
        case DType::int64:
            break;
    }
    not_floating(dtype);
}

std::int64_t integer_at(const void* elements, std::size_t index, DType dtype) {
    return dtype == DType::int32 ? load<std::int32_t>(elements, index) : load<std::int64_t>(elements, index);
}

void set_integer(void* elements, std::size_t index, DType dtype, std::int64_t value) {
    if (dtype == DType::int32) {
        store(elements, index, static_cast<std::int32_t>(value));
    } else {
        store(elements, index, value);
    }
}

}  // namespace smlora::tool
