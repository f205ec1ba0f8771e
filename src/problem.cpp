#include "describe.hpp"
#include "limits.hpp"

#include <smlora/error.hpp>
#include <smlora/problem.hpp>

#include <fmt/format.h>

#include <limits>
#include <utility>

namespace smlora {
namespace {

template <class... Arguments>
[[noreturn]] void fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    throw Error(ErrorCode::invalid_argument, fmt::format(format, std::forward<Arguments>(arguments)...));
}

void check_range(const char* field, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high) fail("problem.{}: expected {} to {}, got {}", field, low, high, value);
}

bool is_floating(DType dtype) {
    return dtype == DType::bf16 || dtype == DType::fp16 || dtype == DType::fp32 || dtype == DType::fp64;
}

void check_companion(const char* field, DType value, DType dtype) {
    if (value == dtype || value == DType::fp32) return;
    if (dtype == DType::fp32) fail("problem.{}: expected fp32 (problem.dtype), got {}", field, describe(value));
    fail("problem.{}: expected {} (problem.dtype) or fp32, got {}", field, name(dtype), describe(value));
}

void check_order(const char* field, RowOrder order) {
    if (order != RowOrder::token && order != RowOrder::scattered && order != RowOrder::grouped) {
        fail("problem.{}: expected token, scattered or grouped, got the value {}", field,
             static_cast<std::int32_t>(order));
    }
}

}  // namespace

std::string_view name(RowOrder order) {
    switch (order) {
        case RowOrder::token:
            return "token";
        case RowOrder::scattered:
            return "scattered";
        case RowOrder::grouped:
            return "grouped";
    }
    fail("row order: expected 0 to 2, got {}", static_cast<std::int32_t>(order));
}

std::string_view name(WeightLayout layout) {
    switch (layout) {
        case WeightLayout::ekn:
            return "ekn";
        case WeightLayout::enk:
            return "enk";
    }
    fail("weight layout: expected 0 or 1, got {}", static_cast<std::int32_t>(layout));
}

void validate(const Problem& problem) {
    // Extents beyond 2^31 - 1 would overflow the 64-bit size of a tensor; none is near it.
    constexpr std::int64_t largest_extent = std::numeric_limits<std::int32_t>::max();
    check_range("E", problem.E, 1, max_experts);
    check_range("K", problem.K, 1, largest_extent);
    check_range("N", problem.N, 1, largest_extent);
    check_range("R", problem.R, 0, max_rank);
    check_range("top_k", problem.top_k, 1, max_top_k);
    if (!is_floating(problem.dtype)) {
        fail("problem.dtype: expected bf16, fp16, fp32 or fp64, got {}", describe(problem.dtype));
    }
    check_companion("adapter_dtype", problem.adapter_dtype, problem.dtype);
    check_companion("gate_dtype", problem.gate_dtype, problem.dtype);
    if (problem.index_dtype != DType::int32 && problem.index_dtype != DType::int64) {
        fail("problem.index_dtype: expected int32 or int64, got {}", describe(problem.index_dtype));
    }
    if (problem.weight_layout != WeightLayout::ekn && problem.weight_layout != WeightLayout::enk) {
        fail("problem.weight_layout: expected ekn or enk, got the value {}",
             static_cast<std::int32_t>(problem.weight_layout));
    }
    check_order("x_rows", problem.x_rows);
    check_order("y_rows", problem.y_rows);
    if (problem.gates && problem.y_rows != RowOrder::token) {
        fail("problem.gates: expected false unless problem.y_rows is token, got true with y_rows = {}",
             name(problem.y_rows));
    }
}

std::string to_string(const Problem& problem) {
    std::string text =
        fmt::format("E{} K{} N{} R{} k{} {} {} {}->{}", problem.E, problem.K, problem.N, problem.R, problem.top_k,
                    name(problem.dtype), name(problem.weight_layout), name(problem.x_rows), name(problem.y_rows));
    if (problem.R > 0 && problem.adapter_dtype != problem.dtype)
        text += fmt::format(" adapter:{}", name(problem.adapter_dtype));
    if (problem.bias) text += " bias";
    if (problem.gates) text += fmt::format(" gates:{}", name(problem.gate_dtype));
    if (problem.index_dtype != DType::int32) text += fmt::format(" index:{}", name(problem.index_dtype));
    return text;
}

}  // namespace smlora
