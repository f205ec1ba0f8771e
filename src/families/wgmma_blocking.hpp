// Blockings of grouped_product_wgmma: the candidates, what is legal of them, and a cost model.
#pragma once

#include "args/grouped_product_wgmma.h"
#include "families/product_step.hpp"
#include "families/tiles.hpp"
#include "gpu/device.hpp"
#include "tune/candidate.hpp"

#include <cstdint>
#include <string>

namespace smlora::families {

inline constexpr const char* product_wgmma_family = "grouped_product_wgmma";

/// Of all blockings.
inline constexpr int least_wgmma_tile_rows = 32;

/// Blocking of one kernel.
struct WgmmaBlocking {
    int tile_rows;  ///< at most
    int row_step;   ///< rows are multiplied in multiples of it
    int stages;
    int staging_rows;  ///< of the output, on their way to memory
    int cluster;
    bool makes_rank_rows;  ///< rather than reading what another kernel made
    /// The first column tiles, which make the rank rows, come band of experts by band of experts, rather than all of
    /// them before all others. Another order for the same kernel.
    bool bands;

    [[nodiscard]] grouped_product_wgmma::Blocking blocking() const {
        return {tile_rows, stages, staging_rows, cluster, makes_rank_rows};
    }
    /// Dynamic shared memory. `rank`: padded; 0: no adapter.
    [[nodiscard]] int shared_bytes(std::int64_t E, std::int64_t rank) const;
};

/// What SMLORA_INSTRUCTIONS restricts products to: "mma", "wgmma", or nothing. Throws Error{invalid_argument} if it is
/// something else.
[[nodiscard]] std::string named_instructions();

/// The blockings of the family grouped_product_wgmma, legal or not: they need sm_90a and more than one step of the
/// reduction. Throws like named_instructions().
[[nodiscard]] tune::SearchSpace wgmma_candidates(const Problem& problem, const ProductKernel& product,
                                                 const ProductSize& size, const gpu::DeviceFacts& facts);

[[nodiscard]] WgmmaBlocking wgmma_blocking(const tune::Configuration& configuration);

/// Whether a product makes its rank rows on the way, rather than reading what another kernel made. For configurations
/// of every family.
[[nodiscard]] bool makes_rank_rows(const tune::Configuration& configuration);

}  // namespace smlora::families
