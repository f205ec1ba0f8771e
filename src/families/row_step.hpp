// What the steps of row kernels have in common.
#pragma once

#include "families/step.hpp"

#include <utility>
#include <vector>

namespace smlora::families {

inline constexpr int row_threads = 256;

[[nodiscard]] inline Step row_step(const char* family, std::vector<jit::Constant> constants) {
    Step step;
    step.spec.family = family;
    step.spec.constants = std::move(constants);
    step.spec.threads = row_threads;
    step.tile_rows = row_threads / 32;  // a warp takes a row or a matrix, or a segment of one
    step.column_tiles = 1;
    return step;
}

}  // namespace smlora::families
