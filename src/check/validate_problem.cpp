// The problem by itself.
#include "check/fail.hpp"
#include "check/weight_format.hpp"
#include "describe.hpp"
#include "limits.hpp"

#include <smlora/problem.hpp>

#include <limits>

namespace smlora {
namespace {

using check::fail;

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

void check_weights(const Problem& problem) {
    const WeightFormat& format = problem.weights;
    const bool enk = problem.weight_layout == WeightLayout::enk;
    check::check_format("problem.weights", format, enk ? problem.N : problem.K, enk ? problem.K : problem.N);
    if (format.encoding == Encoding::plain) return;
    check::check_type("problem.weights.scales", format.scales, check::scale_types(format));
    if (problem.dtype == DType::fp64) {
        fail("problem.dtype: expected bf16, fp16 or fp32 with quantised weights, got fp64");
    }
}

void check_order(const char* field, RowOrder order) {
    if (order != RowOrder::token && order != RowOrder::scattered && order != RowOrder::grouped) {
        fail("problem.{}: expected token, scattered or grouped, got the value {}", field,
             static_cast<std::int32_t>(order));
    }
}

}  // namespace

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
    check_weights(problem);
    check_order("x_rows", problem.x_rows);
    check_order("y_rows", problem.y_rows);
    if (problem.gates && problem.y_rows != RowOrder::token) {
        fail("problem.gates: expected false unless problem.y_rows is token, got true with y_rows = {}",
             name(problem.y_rows));
    }
}

}  // namespace smlora
