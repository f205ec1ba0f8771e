#include "families/gradient_simt.hpp"

#include "families/type_names.hpp"

#include <vector>

namespace smlora::families {
namespace {

std::vector<jit::Constant> gradient_constants(const Problem& problem, const WideOperand& wide) {
    return {
        {"E", problem.E},
        {"WIDE", wide.width},
        {"RANK", problem.R},
        {"RANK_STRIDE", padded_rank(problem)},
        {"ROWS", static_cast<int>(wide.rows)},
        {"TOP_K", problem.top_k},
        {"HAS_GATES", problem.gates},
        {"Element", type_name(problem.dtype)},
        {"Output", type_name(problem.adapter_dtype)},
        {"Gate", gate_type_name(problem, problem.gates)},
        {"Index", type_name(problem.index_dtype)},
    };
}

/// Columns of the wide operand that a block takes.
constexpr std::int64_t block_columns = 64;

}  // namespace

Step gradient_simt_step(const Problem& problem, const WideOperand& wide) {
    Step step;
    step.spec.family = "lora_gradient_simt";
    step.spec.threads = 256;
    step.spec.constants = gradient_constants(problem, wide);
    step.column_tiles = static_cast<int>(((wide.width + block_columns - 1) / block_columns) * ((problem.R + 15) / 16));
    return step;
}

Step gradient_reference_step(const Problem& problem, const WideOperand& wide) {
    Step step;
    step.spec.family = "lora_gradient_reference";
    step.spec.threads = 256;
    step.spec.constants = gradient_constants(problem, wide);
    // Any grid will do: about as many blocks as such columns.
    step.tile_rows = static_cast<int>(block_columns);
    step.column_tiles = static_cast<int>((wide.width + block_columns - 1) / block_columns);
    return step;
}

}  // namespace smlora::families
