// Scratch memory of the operations of a projection.
#pragma once

#include "engine/scratch.hpp"

#include <smlora/problem.hpp>

#include <cstddef>
#include <cstdint>

namespace smlora::ops {

/// Which pieces an operation needs.
struct ScratchNeeds {
    bool product = false;  ///< what the blocks of a product with an adapter tell each other by
    bool xa = false;
    bool yb = false;
    std::int64_t summed_columns = 0;  ///< of rows that are summed afterwards
    bool packed_a = false;
    bool packed_b = false;
    bool partials_a = false;  ///< of the gradients
    bool partials_b = false;
    std::int64_t unpacked_experts = 0;   ///< of quantised weights, at once
    std::int64_t permuted_elements = 0;  ///< of rows, for products that multiply codes
};

/// Its pieces, for M rows.
struct ProjectionScratch {
    ProjectionScratch(const Problem& problem, std::int64_t M, const ScratchNeeds& needs);

    engine::Scratch memory;
    engine::Scratch::Piece product, xa, yb, rows, packed_a, packed_b, partials_a, partials_b, weights, slice, permuted;
};

}  // namespace smlora::ops
