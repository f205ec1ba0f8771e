// Rows of elements of any dtype, to and from the type in which is computed.
#pragma once

#include "cpu/convert.hpp"

#include <smlora/dtype.hpp>
#include <smlora/error.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace smlora::cpu {

/// The element at an offset that counts elements.
[[nodiscard]] inline const void* element_at(const void* data, DType dtype, std::int64_t offset) {
    return static_cast<const char*>(data) + offset * static_cast<std::int64_t>(size_of(dtype));
}
[[nodiscard]] inline void* element_at(void* data, DType dtype, std::int64_t offset) {
    return static_cast<char*>(data) + offset * static_cast<std::int64_t>(size_of(dtype));
}

/// Row `row` of a tensor [rows, columns], from column `column` on.
[[nodiscard]] inline void* row_at(const Tensor& tensor, std::int64_t row, std::int64_t column = 0) {
    return element_at(tensor.data, tensor.dtype, row * tensor.strides[0] + column);
}

namespace detail {

template <class Acc>
Acc decode(double value) {
    return static_cast<Acc>(value);
}
template <class Acc, class Element>
Acc decode(Element value) {
    return static_cast<Acc>(to_float(value));
}

inline void encode(float value, Bf16& out) { out = to_bf16(value); }
inline void encode(float value, Fp16& out) { out = to_fp16(value); }
inline void encode(float value, float& out) { out = value; }
inline void encode(double value, float& out) { out = static_cast<float>(value); }
inline void encode(double value, double& out) { out = value; }

/// Calls visitor(Element*) for the dtypes that tensors have beside sums in Acc: all of 16 and 32 bits with float, fp32
/// and fp64 with double.
template <class Acc, class Pointer, class Visitor>
void visit(Pointer data, DType dtype, const Visitor& visitor) {
    constexpr bool is_const = std::is_const_v<std::remove_pointer_t<Pointer>>;
    auto as = [data]<class Element>(Element) {
        return static_cast<std::conditional_t<is_const, const Element, Element>*>(data);
    };
    if (dtype == DType::fp32) return visitor(as(float{}));
    if constexpr (std::is_same_v<Acc, double>) {
        if (dtype == DType::fp64) return visitor(as(double{}));
    } else {
        if (dtype == DType::bf16) return visitor(as(Bf16{}));
        if (dtype == DType::fp16) return visitor(as(Fp16{}));
    }
    throw Error(ErrorCode::internal, "no conversion for " + std::string(name(dtype)));
}

}  // namespace detail

template <class Acc>
void load_row(const void* data, DType dtype, std::int64_t count, Acc* values) {
    detail::visit<Acc>(data, dtype, [&](const auto* elements) {
        for (std::int64_t i = 0; i < count; ++i) values[i] = detail::decode<Acc>(elements[i]);
    });
}

/// Rounds to nearest even.
template <class Acc>
void store_row(const Acc* values, std::int64_t count, void* data, DType dtype, std::int64_t stride = 1) {
    detail::visit<Acc>(data, dtype, [&](auto* elements) {
        if (stride == 1) {
            for (std::int64_t i = 0; i < count; ++i) detail::encode(values[i], elements[i]);
        } else {
            for (std::int64_t i = 0; i < count; ++i) detail::encode(values[i], elements[i * stride]);
        }
    });
}

/// All of a contiguous tensor; empty if it is not given.
template <class Acc>
std::vector<Acc> load_all(const Tensor& tensor) {
    std::vector<Acc> values;
    if (tensor.given()) {
        values.resize(static_cast<std::size_t>(tensor.numel()));
        load_row<Acc>(tensor.data, tensor.dtype, tensor.numel(), values.data());
    }
    return values;
}

}  // namespace smlora::cpu
