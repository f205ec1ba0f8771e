// The list of kernel families: a new one has its line here.
#include "families/family.hpp"
#include "families/gradient_bulk.hpp"
#include "families/gradient_mma.hpp"
#include "families/gradient_wgmma.hpp"
#include "families/product_mma.hpp"
#include "families/product_packed.hpp"
#include "families/product_simt.hpp"
#include "families/product_wgmma.hpp"
#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace smlora::families {
namespace {

// Of candidates that are predicted alike, that of the first family is taken.
const ProductFamily* const product_families[] = {
    &product_mma,
    &product_wgmma,
    &product_packed,
    &product_mma_packed,
};
const GradientFamily* const gradient_families[] = {
    &gradient_bulk,
    &gradient_mma,
    &gradient_wgmma,
};

template <class Families>
auto family_of(const Families& families, const tuning::Configuration& configuration) {
    const auto found = std::find_if(std::begin(families), std::end(families),
                                    [&](const auto* family) { return family->name == configuration.family; });
    if (found == std::end(families)) {
        throw Error(ErrorCode::internal, fmt::format("there is no kernel family {} here", configuration.family));
    }
    return *found;
}

void append(tuning::SearchSpace& space, tuning::SearchSpace more) {
    space.insert(space.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

/// What SMLORA_INSTRUCTIONS restricts products to, or nothing. Throws if that is no family.
std::string named_instructions() {
    const std::string named = util::environment("SMLORA_INSTRUCTIONS").value_or("");
    std::string known;
    for (const ProductFamily* family : product_families) {
        if (named.empty() || named == family->instructions) return named;
        if (family->multiplies_codes) continue;
        known += fmt::format("{}{}", known.empty() ? "" : " or ", family->instructions);
    }
    throw Error(ErrorCode::invalid_argument, fmt::format("SMLORA_INSTRUCTIONS: expected {}, got {}", known, named));
}

/// Refuses all but those of the family that is named, if that has any.
void restrict_to_named(tuning::SearchSpace& space) {
    const std::string named = named_instructions();
    if (named.empty()) return;
    const auto is_named = [&](const tuning::Candidate& candidate) {
        return family_of(product_families, candidate.configuration)->instructions == named;
    };
    if (std::none_of(space.begin(), space.end(),
                     [&](const tuning::Candidate& candidate) { return candidate.legal() && is_named(candidate); })) {
        return;
    }
    for (tuning::Candidate& candidate : space) {
        if (candidate.legal() && !is_named(candidate)) candidate.refusal = "SMLORA_INSTRUCTIONS is " + named;
    }
}

}  // namespace

tuning::SearchSpace product_candidates(const ProductWork& work, const gpu::DeviceFacts& facts) {
    const bool rank_product = work.product.kind == Product::Kind::rank_rows;
    tuning::SearchSpace space;
    for (const ProductFamily* family : product_families) {
        const bool fits = rank_product ? family->makes_rank_products : family->multiplies_codes == work.product.packed;
        if (fits) append(space, family->candidates(work, facts));
    }
    if (!rank_product) restrict_to_named(space);
    return space;
}

tuning::SearchSpace gradient_candidates(const GradientWork& work, const gpu::DeviceFacts& facts) {
    tuning::SearchSpace space;
    for (const GradientFamily* family : gradient_families) append(space, family->candidates(work, facts));
    return space;
}

Step product_step(const ProductWork& work, const std::optional<tuning::Configuration>& configuration) {
    if (!configuration) return product_simt_step(work);
    return family_of(product_families, *configuration)->step(work, *configuration);
}

Step gradients_step(const GradientWork& work, const tuning::Configuration& configuration) {
    return family_of(gradient_families, configuration)->step(work, configuration);
}

bool makes_rank_rows(const tuning::Configuration& configuration) {
    const ProductFamily* const family = family_of(product_families, configuration);
    return family->makes_rank_rows != nullptr && family->makes_rank_rows(configuration);
}

bool takes_permuted_rows(const Product& product, const tuning::Configuration& configuration) {
    return family_of(product_families, configuration)->permutes_rows && !product.weight_out_contiguous;
}

std::int64_t product_scratch_bytes(const Problem& problem, std::int64_t M) {
    std::int64_t bytes = 0;
    for (const ProductFamily* family : product_families) {
        if (family->scratch_bytes != nullptr) bytes = std::max(bytes, family->scratch_bytes(problem, M));
    }
    return bytes;
}

}  // namespace smlora::families
