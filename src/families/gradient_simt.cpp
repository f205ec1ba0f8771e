#include "families/gradient_simt.hpp"

#include "args/lora_gradient_simt.h"
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

using lora_gradient_simt::block_threads;
using lora_gradient_simt::tile_c;

}  // namespace

Step gradient_simt_step(const Problem& problem, const WideOperand& wide) {
    Step step;
    step.spec.family = "lora_gradient_simt";
    step.spec.threads = block_threads;
    step.spec.constants = gradient_constants(problem, wide);
    step.column_tiles = lora_gradient_simt::tiles(static_cast<int>(wide.width), static_cast<int>(problem.R));
    return step;
}

Step gradient_reference_step(const Problem& problem, const WideOperand& wide) {
    Step step;
    step.spec.family = "lora_gradient_reference";
    step.spec.threads = block_threads;
    step.spec.constants = gradient_constants(problem, wide);
    // Any grid will do: about as many blocks as such columns.
    step.tile_rows = tile_c;
    step.column_tiles = ceil_div(static_cast<int>(wide.width), tile_c);
    return step;
}

}  // namespace smlora::families
