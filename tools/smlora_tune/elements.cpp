#include "smlora_tune/elements.hpp"

#include "cpu/convert.hpp"

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

[[noreturn]] void not_floating(DType dtype) {
    throw std::logic_error("expected a floating-point type, got " + std::string(name(dtype)));
}

}  // namespace

void encode(const double* values, std::size_t count, DType dtype, void* elements) {
    switch (dtype) {
        case DType::bf16:
            for (std::size_t i = 0; i < count; ++i) store(elements, i, cpu::to_bf16(static_cast<float>(values[i])));
            return;
        case DType::fp16:
            for (std::size_t i = 0; i < count; ++i) store(elements, i, cpu::to_fp16(static_cast<float>(values[i])));
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
                values[i] = static_cast<double>(cpu::to_float(load<cpu::Bf16>(elements, i)));
            }
            return;
        case DType::fp16:
            for (std::size_t i = 0; i < count; ++i) {
                values[i] = static_cast<double>(cpu::to_float(load<cpu::Fp16>(elements, i)));
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
