#include "models/model_shape.hpp"

namespace smlora::models {

std::vector<Projection> projections(const ModelShape& model, std::int64_t rank) {
    Problem common;
    common.E = model.num_experts;
    common.R = rank;
    common.top_k = model.top_k;
    common.dtype = model.dtype;
    common.adapter_dtype = model.dtype;
    common.weight_layout = model.weight_layout;
    common.bias = model.bias;

    Problem gate_up = common;
    gate_up.K = model.hidden_size;
    gate_up.N = 2 * model.intermediate_size;
    gate_up.x_rows = RowOrder::token;
    gate_up.y_rows = RowOrder::grouped;

    Problem down = common;
    down.K = model.intermediate_size;
    down.N = model.hidden_size;
    down.x_rows = RowOrder::grouped;
    down.y_rows = RowOrder::token;
    down.gates = true;

    return {{"gate_up", gate_up}, {"down", down}};
}

}  // namespace smlora::models
