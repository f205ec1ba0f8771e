#include "families/rows.hpp"

#include "args/activation.h"
#include "args/combine.h"
#include "args/gather_rows.h"
#include "families/row_step.hpp"
#include "families/type_names.hpp"

#include <algorithm>

namespace smlora::families {
namespace {

/// Units that a row has: of 16 bytes, or of one element.
int units_of(DType dtype, const RowShape& shape) {
    return static_cast<int>(shape.vectors ? shape.width * static_cast<std::int64_t>(size_of(dtype)) / 16 : shape.width);
}

}  // namespace

Step gather_step(const Problem& problem, const RowShape& shape, const Gather& gather) {
    // Flat entries have no experts: one kernel for problems of any number.
    Step step = row_step("gather_rows", {{"E", gather.flat ? 1 : problem.E},
                                         {"WIDTH", shape.width},
                                         {"VECTOR", shape.vectors},
                                         {"ROWS", static_cast<int>(gather.rows)},
                                         {"TOP_K", problem.top_k},
                                         {"FLAT", gather.flat},
                                         {"HAS_GATES", gather.gates},
                                         {"Element", type_name(problem.dtype)},
                                         {"Gate", gate_type_name(problem, gather.gates)},
                                         {"Index", type_name(problem.index_dtype)}});
    step.column_tiles = gather_segments(units_of(problem.dtype, shape)).count;
    return step;
}

Step combine_step(const Problem& problem, const RowShape& shape, bool gates) {
    Step step = row_step("combine", {{"TOP_K", problem.top_k},
                                     {"WIDTH", shape.width},
                                     {"VECTOR", shape.vectors},
                                     {"HAS_GATES", gates},
                                     {"Element", type_name(problem.dtype)},
                                     {"Gate", gate_type_name(problem, gates)}});
    step.column_tiles = combine_segments(units_of(problem.dtype, shape), static_cast<int>(problem.top_k)).count;
    return step;
}

Step flat_gate_gradient_step(const Problem& problem, const RowShape& shape) {
    return row_step("gate_gradient", {{"WIDTH", shape.width},
                                      {"VECTOR", shape.vectors},
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

Step gate_gradient_step(const Problem& problem, bool vectors, const GateGradient& gradient) {
    std::vector<jit::Constant> constants{{"WIDTH", problem.K},
                                         {"VECTOR", vectors},
                                         {"LEFT_ROWS", static_cast<int>(gradient.left_rows)},
                                         {"RIGHT_ROWS", static_cast<int>(problem.x_rows)},
                                         {"TOP_K", problem.top_k},
                                         {"FLAT", 0},
                                         {"E", problem.E},
                                         {"SCALE_LEFT", gradient.scales_left},
                                         {"HAS_BIAS", problem.bias},
                                         {"Element", type_name(problem.dtype)},
                                         {"Gate", type_name(problem.gate_dtype)},
                                         {"Index", type_name(problem.index_dtype)}};
    if (problem.bias) {
        constants.emplace_back("BIAS_WIDTH", problem.N);
        constants.emplace_back("BIAS_VECTOR", gradient.bias_vectors);
        constants.emplace_back("BIAS_ROWS", static_cast<int>(problem.y_rows));
    }
    return row_step("gate_gradient", std::move(constants));
}

Step activation_step(const Problem& problem, const RowShape& shape, const ActivationWork& work) {
    std::vector<jit::Constant> constants{{"WIDTH", shape.width},
                                         {"VECTOR", shape.vectors},
                                         {"ACTIVATION", static_cast<int>(work.activation)},
                                         {"INTERLEAVED", work.layout == GateLayout::interleaved},
                                         {"BACKWARD", work.direction == ActivationWork::Direction::backward},
                                         {"WRITES_A", work.writes_a},
                                         {"HAS_GATES", work.gates},
                                         {"Element", type_name(problem.dtype)}};
    if (work.gates) {
        constants.emplace_back("Gate", type_name(problem.gate_dtype));
        constants.emplace_back("Index", type_name(problem.index_dtype));
    }
    Step step = row_step("activation", std::move(constants));
    // With gates a warp takes all of a row.
    if (!work.gates) step.column_tiles = activation_segments(units_of(problem.dtype, shape)).count;
    return step;
}

}  // namespace smlora::families
