#include "check/validate_tensor.hpp"

#include "check/fail.hpp"
#include "describe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

namespace smlora::check {
namespace {

std::size_t at(std::int32_t i) { return static_cast<std::size_t>(i); }

std::string text_of(const std::array<std::int64_t, Tensor::max_ndim>& values, std::int32_t count) {
    if (count < 0) return fmt::format("{} extents", count);
    std::string text = "[";
    for (std::int32_t i = 0; i < std::min(count, Tensor::max_ndim); ++i) {
        text += fmt::format("{}{}", i == 0 ? "" : ", ", values[at(i)]);
    }
    if (count > Tensor::max_ndim) text += ", ..";
    return text + "]";
}

std::string symbols_of(std::initializer_list<Extent> shape) {
    std::string text = "[";
    for (const Extent& extent : shape) text += fmt::format("{}{}", text.size() == 1 ? "" : ", ", extent.symbol);
    return text + "]";
}

std::string values_of(std::initializer_list<Extent> shape) {
    std::string text = "[";
    for (const Extent& extent : shape) text += fmt::format("{}{}", text.size() == 1 ? "" : ", ", extent.value);
    return text + "]";
}

[[noreturn, gnu::cold]] void fail_shape(const char* argument, const Tensor& tensor,
                                        std::initializer_list<Extent> shape) {
    fail("{}: expected {} = {}, got {}", argument, symbols_of(shape), values_of(shape),
         text_of(tensor.shape, tensor.ndim));
}

[[noreturn, gnu::cold]] void fail_strides(const char* argument, const Tensor& tensor, const char* expected) {
    fail("{}: expected {}, got strides {} for shape {}", argument, expected, text_of(tensor.strides, tensor.ndim),
         text_of(tensor.shape, tensor.ndim));
}

bool same_shape(const Tensor& tensor, std::initializer_list<Extent> shape) {
    if (at(tensor.ndim) != shape.size()) return false;
    return std::equal(shape.begin(), shape.end(), tensor.shape.begin(),
                      [](const Extent& extent, std::int64_t got) { return extent.value == got; });
}

/// Whether the dimensions from `first` on are row-major without gaps.
bool contiguous_from(const Tensor& tensor, std::int32_t first) {
    std::int64_t stride = 1;
    for (std::int32_t i = tensor.ndim; i-- > first;) {
        if (tensor.shape[at(i)] != 1 && tensor.strides[at(i)] != stride) return false;
        stride *= tensor.shape[at(i)];
    }
    return true;
}

/// Sufficient, and necessary for every layout that slices and transposes of a row-major array can make: from the
/// smallest stride on, each steps over all that the smaller ones reach.
bool disjoint(const Tensor& tensor) {
    struct Dimension {
        std::int64_t stride;
        std::int64_t extent;
    };
    std::array<Dimension, Tensor::max_ndim> steps{};  // by ascending stride
    std::size_t count = 0;
    for (std::int32_t d = 0; d < tensor.ndim; ++d) {
        if (tensor.shape[at(d)] <= 1) continue;
        std::size_t i = count++;
        for (; i > 0 && steps[i - 1].stride > tensor.strides[at(d)]; --i) steps[i] = steps[i - 1];
        steps[i] = {tensor.strides[at(d)], tensor.shape[at(d)]};
    }
    std::int64_t reach = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (steps[i].stride <= reach) return false;
        reach += steps[i].stride * (steps[i].extent - 1);
    }
    return true;
}

/// No stride is negative and the last element's offset in bytes fits 63 bits.
void check_reach(const char* argument, const Tensor& tensor) {
    const auto element = static_cast<std::int64_t>(size_of(tensor.dtype));
    std::int64_t reach = element;
    for (std::int32_t i = 0; i < tensor.ndim; ++i) {
        if (tensor.shape[at(i)] <= 1) continue;
        if (tensor.strides[at(i)] < 0) fail_strides(argument, tensor, "strides of 0 or more");
        std::int64_t span = 0;
        if (__builtin_mul_overflow(tensor.shape[at(i)] - 1, tensor.strides[at(i)], &span) ||
            __builtin_mul_overflow(span, element, &span) || __builtin_add_overflow(reach, span, &reach)) {
            fail_strides(argument, tensor, "less than 2^63 bytes");
        }
    }
}

void check_strides(const char* argument, const Tensor& tensor, Strides strides) {
    check_reach(argument, tensor);
    switch (strides) {
        case Strides::contiguous:
            if (!contiguous_from(tensor, 0)) fail_strides(argument, tensor, "a contiguous tensor");
            break;
        case Strides::rows:
            if (!contiguous_from(tensor, 1)) fail_strides(argument, tensor, "contiguous columns");
            if (tensor.shape[0] > 1 && tensor.strides[0] < tensor.shape[1]) {
                fail_strides(argument, tensor, "a row stride no smaller than the row");
            }
            break;
        case Strides::matrices:
            if (!contiguous_from(tensor, 1)) fail_strides(argument, tensor, "contiguous matrices");
            break;
        case Strides::any:
            break;
        case Strides::disjoint:
            if (!disjoint(tensor)) fail_strides(argument, tensor, "elements that do not overlap");
            break;
    }
}

/// Presence, dtype, shape and memory; returns whether there is any element.
bool check_extents(const char* argument, const Tensor& tensor, DType dtype, std::initializer_list<Extent> shape) {
    if (!tensor.given()) {
        fail("{}: expected {} = {} of {}, not given", argument, symbols_of(shape), values_of(shape), describe(dtype));
    }
    if (tensor.dtype != dtype) fail("{}: expected {}, got {}", argument, describe(dtype), describe(tensor.dtype));
    if (!same_shape(tensor, shape)) fail_shape(argument, tensor, shape);
    const bool empty = std::any_of(shape.begin(), shape.end(), [](const Extent& extent) { return extent.value == 0; });
    if (!empty && tensor.data == nullptr) {
        fail("{}: expected memory for shape {}, got a null pointer", argument, values_of(shape));
    }
    // Sizes are powers of two, and a division would be the dearest thing here.
    if (!empty && (reinterpret_cast<std::uintptr_t>(tensor.data) & (size_of(dtype) - 1)) != 0) {
        fail("{}: expected memory aligned to the {} bytes of {}, got {}", argument, size_of(dtype), describe(dtype),
             tensor.data);
    }
    return !empty;
}

}  // namespace

void check_tensor(const char* argument, const Tensor& tensor, DType dtype, std::initializer_list<Extent> shape,
                  Strides strides) {
    if (check_extents(argument, tensor, dtype, shape)) check_strides(argument, tensor, strides);
}

void check_elements(const char* argument, const Tensor& tensor, DType dtype, Extent count) {
    if (!tensor.given()) fail("{}: expected {}, not given", argument, describe(dtype));
    if (tensor.dtype != dtype) fail("{}: expected {}, got {}", argument, describe(dtype), describe(tensor.dtype));
    if (tensor.ndim < 0 || tensor.ndim > Tensor::max_ndim) {
        fail("{}: expected 1 to {} extents, got {}", argument, Tensor::max_ndim, tensor.ndim);
    }
    if (tensor.numel() != count.value) {
        fail("{}: expected {} = {} elements, got {}", argument, count.symbol, count.value, tensor.numel());
    }
    check_strides(argument, tensor, Strides::contiguous);
    const Tensor flat(tensor.data, dtype, {count.value});
    static_cast<void>(check_extents(argument, flat, dtype, {count}));
}

void check_rank_rows(const char* argument, const Tensor& tensor, const Problem& problem, std::int64_t M) {
    if (!check_extents(argument, tensor, problem.dtype, {{"M", M}, {"R", problem.R}})) return;
    check_reach(argument, tensor);
    // Of a single row too: its padding is written as well.
    if (tensor.strides[0] != padded_rank(problem) || (problem.R > 1 && tensor.strides[1] != 1)) {
        fail("{}: expected strides {{padded_rank, 1}} = [{}, 1], got {}", argument, padded_rank(problem),
             text_of(tensor.strides, tensor.ndim));
    }
}

Tensor with_padding(const Tensor& rank_rows, const Problem& problem) {
    Tensor padded = rank_rows;
    if (padded.given()) {
        padded.shape[1] = padded_rank(problem);
        padded.strides[1] = 1;  // which nothing said if R is 1
    }
    return padded;
}

void check_absent(const char* argument, const Tensor& tensor, const char* reason) {
    if (tensor.given()) {
        fail("{}: expected not to be given {}, got shape {}", argument, reason, text_of(tensor.shape, tensor.ndim));
    }
}

void check_given(const char* argument, const Tensor& tensor, const char* reason) {
    if (!tensor.given()) fail("{}: expected to be given {}, not given", argument, reason);
}

std::int64_t tokens_of_rows(const char* argument, const Tensor& rows, RowOrder order, const Problem& problem) {
    const bool token = order == RowOrder::token;
    const char* shape = token ? "[T, columns]" : "[M, columns]";
    if (!rows.given()) fail("{}: expected {} of {}, not given", argument, shape, describe(problem.dtype));
    if (rows.ndim != 2 || rows.shape[0] < 0 || rows.shape[1] < 0) {
        fail("{}: expected {}, got {}", argument, shape, text_of(rows.shape, rows.ndim));
    }
    if (token) return rows.shape[0];
    if (rows.shape[0] % problem.top_k != 0) {
        fail("{}: expected {} with M = T * top_k, a multiple of {}, got {}", argument, shape, problem.top_k,
             text_of(rows.shape, rows.ndim));
    }
    return rows.shape[0] / problem.top_k;
}

std::int64_t tokens_of_choices(const Tensor& top_idx) {
    if (!top_idx.given()) fail("top_idx: expected [T, top_k] of int32 or int64, not given");
    if (top_idx.dtype != DType::int32 && top_idx.dtype != DType::int64) {
        fail("top_idx: expected int32 or int64, got {}", describe(top_idx.dtype));
    }
    if (top_idx.ndim != 2 || top_idx.shape[0] < 0) {
        fail("top_idx: expected [T, top_k], got {}", text_of(top_idx.shape, top_idx.ndim));
    }
    return top_idx.shape[0];
}

}  // namespace smlora::check
