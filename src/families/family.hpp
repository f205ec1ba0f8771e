// The seam between kernel families and everything else.
//
// A family is a way to compute one piece of work that the tuner may choose: its blockings, a cost model, the constants
// of its template and its launch, all of it in one pair of files. registry.cpp lists them; nothing else names one.
#pragma once

#include "families/gradients.hpp"
#include "families/product.hpp"
#include "families/step.hpp"
#include "gpu/device.hpp"
#include "tuning/candidate.hpp"
#include "tuning/configuration.hpp"

#include <cstdint>
#include <optional>
#include <string_view>

namespace smlora::families {

/// A way to compute a grouped product.
struct ProductFamily {
    std::string_view name;             ///< of its configurations; also its template's
    std::string_view instructions;     ///< what SMLORA_INSTRUCTIONS calls it
    bool makes_rank_products = false;  ///< computes XA and YB, too, in a kernel of their own
    bool multiplies_codes = false;     ///< of quantised weights, and nothing else: Product::packed
    bool permutes_rows = false;        ///< of codes that lie along the reduction: permute_step

    /// Every blocking, legal or not.
    tuning::SearchSpace (*candidates)(const ProductWork& work, const gpu::DeviceFacts& facts) = nullptr;

    /// The kernel, with a configuration of one of the candidates.
    Step (*step)(const ProductWork& work, const tuning::Configuration& configuration) = nullptr;

    /// Whether the product makes its rank rows on the way, rather than reading what another kernel made. Null: never.
    bool (*makes_rank_rows)(const tuning::Configuration& configuration) = nullptr;

    /// Bytes of Adapter::scratch that any of its products with an adapter may need for M rows. Null: none.
    std::int64_t (*scratch_bytes)(const Problem& problem, std::int64_t M) = nullptr;
};

/// A way to compute the adapter's gradients, see gradients.hpp.
struct GradientFamily {
    std::string_view name;
    tuning::SearchSpace (*candidates)(const GradientWork& work, const gpu::DeviceFacts& facts) = nullptr;
    Step (*step)(const GradientWork& work, const tuning::Configuration& configuration) = nullptr;
};

/// The candidates of every family that computes such a product. SMLORA_INSTRUCTIONS restricts the product of a
/// projection to one family, wherever that has a legal candidate. Throws Error{invalid_argument} if it names none.
[[nodiscard]] tuning::SearchSpace product_candidates(const ProductWork& work, const gpu::DeviceFacts& facts);
[[nodiscard]] tuning::SearchSpace gradient_candidates(const GradientWork& work, const gpu::DeviceFacts& facts);

/// The kernel of a configuration; without one the kernel that needs no tensor cores.
[[nodiscard]] Step product_step(const ProductWork& work, const std::optional<tuning::Configuration>& configuration);
[[nodiscard]] Step gradients_step(const GradientWork& work, const tuning::Configuration& configuration);

/// Whether a product makes its rank rows on the way. For configurations of every family.
[[nodiscard]] bool makes_rank_rows(const tuning::Configuration& configuration);

/// Whether a product takes rows whose columns are permuted, see permute_step.
[[nodiscard]] bool takes_permuted_rows(const Product& product, const tuning::Configuration& configuration);

/// Bytes of Adapter::scratch for M rows, whichever family is chosen.
[[nodiscard]] std::int64_t product_scratch_bytes(const Problem& problem, std::int64_t M);

}  // namespace smlora::families
