#include "models/model_shape.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace smlora::models {
namespace {

/// Their makers quantise along the inputs of a linear layer, whatever the model's class multiplies by.
bool is_along_inputs(Encoding encoding) {
    switch (encoding) {
        case Encoding::plain:
        case Encoding::nf4:
        case Encoding::fp4:
        case Encoding::int8:
            return false;
        case Encoding::mxfp4:
        case Encoding::fp8:
        case Encoding::mxfp8:
        case Encoding::nvfp4:
        case Encoding::int4:
            break;
    }
    return true;
}

/// Interleaved rows of gate and up are no ranges.
std::int64_t parts_of_gate_up(const ModelShape& model) {
    const WeightFormat& weights = model.weights;
    const bool ragged =
        weights.encoding == Encoding::fp8 && weights.block > 0 && model.intermediate_size % weights.block != 0;
    const bool apart = model.gated && (weights.encoding == Encoding::nvfp4 || ragged);
    const std::int64_t least = apart && model.gate_layout == GateLayout::halves ? 2 : 1;
    return std::max(weights.parts, least);
}

}  // namespace

std::vector<Projection> projections(const ModelShape& model, std::int64_t rank) {
    Problem common;
    common.E = model.num_experts;
    common.R = rank;
    common.top_k = model.top_k;
    common.dtype = model.dtype;
    common.adapter_dtype = model.dtype;
    common.weight_layout = is_along_inputs(model.weights.encoding) ? WeightLayout::enk : model.weight_layout;
    common.weights = model.weights;
    common.weights.parts = 1;
    common.bias = model.bias;

    Problem gate_up = common;
    gate_up.K = model.hidden_size;
    gate_up.N = (model.gated ? 2 : 1) * model.intermediate_size;
    gate_up.x_rows = RowOrder::token;
    gate_up.y_rows = RowOrder::grouped;
    gate_up.weights.parts = parts_of_gate_up(model);

    Problem down = common;
    down.K = model.intermediate_size;
    down.N = model.hidden_size;
    down.x_rows = RowOrder::grouped;
    down.y_rows = RowOrder::token;
    down.gates = true;

    return {{model.gated ? "gate_up" : "up", gate_up}, {"down", down}};
}

std::vector<Projection> projections_of_rank(const ModelShape& model, std::int64_t rank,
                                            const ExpertParallelism& parallelism) {
    if (parallelism.ranks < 1 || model.num_experts % parallelism.ranks != 0) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("ranks of experts: expected a divisor of the {} experts of {}, got {}",
                                model.num_experts, model.name, parallelism.ranks));
    }
    std::vector<Projection> result = projections(model, rank);
    for (Projection& projection : result) {
        projection.problem.E /= parallelism.ranks;
        if (parallelism.ranks == 1 || parallelism.shares_tokens) continue;
        projection.problem.top_k = 1;
        projection.problem.gates = false;
    }
    return result;
}

}  // namespace smlora::models
