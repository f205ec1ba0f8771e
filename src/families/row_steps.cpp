#include "families/row_steps.hpp"

#include "args/activation.h"
#include "args/combine.h"
#include "args/gather_rows.h"
#include "args/pack_adapter.h"
#include "args/route.h"
#include "families/product_step.hpp"

#include <algorithm>
#include <utility>

namespace smlora::families {
namespace {

plan::Step row_step(const char* family, std::vector<jit::Constant> constants) {
    plan::Step step;
    step.spec.family = family;
    step.spec.constants = std::move(constants);
    step.spec.threads = row_threads;
    step.tile_rows = row_threads / 32;  // a warp takes a row, or a segment of one
    step.column_tiles = 1;
    return step;
}

/// Units that a row of `width` elements has: of 16 bytes, or of one element.
int units_of(DType dtype, std::int64_t width, bool vector_rows) {
    return static_cast<int>(vector_rows ? width * static_cast<std::int64_t>(size_of(dtype)) / 16 : width);
}

plan::Step pack_step(const Problem& problem, std::int64_t outer, std::int64_t inner, std::int64_t outer_pad,
                     std::int64_t inner_pad, int fastest) {
    plan::Step step = row_step("pack_adapter", {{"E", problem.E},
                                                {"OUTER", outer},
                                                {"INNER", inner},
                                                {"OUTER_PAD", outer_pad},
                                                {"INNER_PAD", inner_pad},
                                                {"THREADS", row_threads},
                                                {"FASTEST", fastest},
                                                {"Source", type_name(problem.adapter_dtype)},
                                                {"Element", type_name(problem.dtype)}});
    step.tile_rows = pack_adapter::tile_elements;
    return step;
}

}  // namespace

std::int64_t route_columns(const Problem& problem) { return smlora::route_columns(static_cast<int>(problem.E)); }

void set_route_steps(plan::Plan& plan, const Problem& problem, const plan::Variant& variant,
                     const gpu::DeviceFacts& facts) {
    const jit::Constant experts{"E", problem.E};
    const jit::Constant input{"Input", type_name(variant.input_index)};
    const jit::Constant index{"Index", type_name(problem.index_dtype)};
    auto step = [&](const char* family, unsigned threads, std::vector<jit::Constant> constants) {
        plan::Step made;
        made.spec.family = family;
        made.spec.threads = threads;
        constants.emplace_back("THREADS", static_cast<std::int64_t>(threads));
        made.spec.constants = std::move(constants);
        return made;
    };
    constexpr unsigned small_threads = 1024;
    plan::Step small = step("route_small", small_threads, {experts, input, index, {"CAPACITY", route_small_capacity}});
    small.spec.dynamic_shared = static_cast<unsigned>(
        route_small::shared_memory(static_cast<int>(problem.E), small_threads, route_small_capacity).bytes);
    if (small.spec.dynamic_shared <= static_cast<unsigned>(facts.shared_bytes_per_block)) {
        plan.set(plan::Role::route_small, std::move(small));
    }
    plan.set(plan::Role::route_count, step("route_count", 256, {experts, input, index}));
    plan.set(plan::Role::route_scan, step("route_scan", 1024, {experts}));
    plan.set(plan::Role::route_scatter, step("route_scatter", 256, {experts, input, index}));
}

plan::Step gather_step(const Problem& problem, const plan::Variant& variant, std::int64_t width, RowOrder rows,
                       bool flat, bool gates) {
    plan::Step step = row_step("gather_rows", {{"E", problem.E},
                                               {"WIDTH", width},
                                               {"VECTOR", variant.vector_rows},
                                               {"ROWS", static_cast<int>(rows)},
                                               {"TOP_K", problem.top_k},
                                               {"FLAT", flat},
                                               {"HAS_GATES", gates},
                                               {"Element", type_name(problem.dtype)},
                                               {"Gate", gate_type_name(problem, gates)},
                                               {"Index", type_name(problem.index_dtype)}});
    step.column_tiles = gather_segments(units_of(problem.dtype, width, variant.vector_rows)).count;
    return step;
}

plan::Step combine_step(const Problem& problem, std::int64_t width, bool vector_rows, bool gates) {
    plan::Step step = row_step("combine", {{"TOP_K", problem.top_k},
                                           {"WIDTH", width},
                                           {"VECTOR", vector_rows},
                                           {"HAS_GATES", gates},
                                           {"Element", type_name(problem.dtype)},
                                           {"Gate", gate_type_name(problem, gates)}});
    step.column_tiles =
        combine_segments(units_of(problem.dtype, width, vector_rows), static_cast<int>(problem.top_k)).count;
    return step;
}

plan::Step flat_gate_gradient_step(const Problem& problem, const plan::Variant& variant, std::int64_t width) {
    return row_step("gate_gradient", {{"WIDTH", width},
                                      {"VECTOR", variant.vector_rows},
                                      {"LEFT_ROWS", static_cast<int>(RowOrder::token)},
                                      {"RIGHT_ROWS", static_cast<int>(RowOrder::scattered)},
                                      {"TOP_K", problem.top_k},
                                      {"FLAT", 1},
                                      {"SCALE_LEFT", 0},
                                      {"HAS_BIAS", 0},
                                      {"Element", type_name(problem.dtype)},
                                      {"Gate", type_name(problem.gate_dtype)},
                                      {"Index", type_name(problem.index_dtype)}});
}

plan::Step gate_gradient_step(const Problem& problem, const plan::Variant& variant, RowOrder left_rows, bool scale) {
    std::vector<jit::Constant> constants{{"WIDTH", problem.K},
                                         {"VECTOR", variant.vector_rows},
                                         {"LEFT_ROWS", static_cast<int>(left_rows)},
                                         {"RIGHT_ROWS", static_cast<int>(problem.x_rows)},
                                         {"TOP_K", problem.top_k},
                                         {"FLAT", 0},
                                         {"E", problem.E},
                                         {"SCALE_LEFT", scale},
                                         {"HAS_BIAS", problem.bias},
                                         {"Element", type_name(problem.dtype)},
                                         {"Gate", type_name(problem.gate_dtype)},
                                         {"Index", type_name(problem.index_dtype)}};
    if (problem.bias) {
        constants.emplace_back("BIAS_WIDTH", problem.N);
        constants.emplace_back("BIAS_VECTOR", variant.vector_bias);
        constants.emplace_back("BIAS_ROWS", static_cast<int>(problem.y_rows));
    }
    return row_step("gate_gradient", std::move(constants));
}

plan::Step activation_step(const Problem& problem, const plan::Variant& variant, bool backward) {
    plan::Step step = row_step("activation", {{"WIDTH", variant.width},
                                              {"VECTOR", variant.vector_rows},
                                              {"ACTIVATION", static_cast<int>(variant.activation)},
                                              {"INTERLEAVED", variant.gate_layout == GateLayout::interleaved},
                                              {"BACKWARD", backward},
                                              {"WRITES_A", !backward || variant.wants_a},
                                              {"Element", type_name(problem.dtype)}});
    step.column_tiles = activation_segments(units_of(problem.dtype, variant.width, variant.vector_rows)).count;
    return step;
}

plan::Step pack_a_step(const Problem& problem, const plan::Variant& variant) {
    return pack_step(problem, problem.R, problem.K, padded_rank(problem), problem.K, variant.fastest_a);
}

plan::Step pack_b_step(const Problem& problem, const plan::Variant& variant) {
    return pack_step(problem, problem.N, problem.R, problem.N, padded_rank(problem), variant.fastest_b);
}

}  // namespace smlora::families
