#include "families/gradient_wgmma.hpp"

#include "args/lora_gradient_wgmma.h"
#include "families/roofline.hpp"
#include "families/shared_memory.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace smlora::families {
namespace {

using lora_gradient_wgmma::Blocking;

constexpr const char* family_name = "lora_gradient_wgmma";

/// Below it, the wide operands are read once by the other families, too.
constexpr std::int64_t least_rank = 24;

unsigned shared_bytes(const Blocking& blocking, std::int64_t E, std::int64_t rank) {
    return static_cast<unsigned>(
        lora_gradient_wgmma::shared_memory(blocking, static_cast<int>(E), static_cast<int>(rank)).bytes);
}

std::string refusal_of(const Blocking& blocking, const GradientSize& size, unsigned bytes,
                       const gpu::DeviceFacts& facts) {
    if (facts.arch.name() != "sm_90a") return "wgmma is an instruction of sm_90a, not of " + facts.arch.name();
    if (blocking.blocks * size.padded_rank > 256) return "a warpgroup's sums do not fit its registers";
    return shared_memory_refusal(bytes, 1, facts);
}

tuning::SearchSpace candidates(const GradientWork& work, const gpu::DeviceFacts& facts) {
    const GradientSize size = gradient_size(work, facts);
    tuning::SearchSpace space;
    if (size.padded_rank < least_rank) return space;
    // No GPU has measured them yet: only tuning chooses them.
    constexpr double efficiency = 0.1;
    constexpr std::array blockings{
        Blocking{4, 64, 3}, Blocking{4, 32, 6}, Blocking{2, 64, 5}, Blocking{2, 64, 4},
        Blocking{2, 32, 8}, Blocking{1, 64, 6}, Blocking{1, 64, 4}, Blocking{1, 32, 8},
    };
    for (const Blocking& blocking : blockings) {
        tuning::Candidate candidate;
        candidate.name =
            fmt::format("wgmma_{}x{}_s{}", lora_gradient_wgmma::span(blocking), blocking.step_rows, blocking.stages);
        candidate.configuration = {
            family_name, {{"BLOCKS", blocking.blocks}, {"STEP_ROWS", blocking.step_rows}, {"STAGES", blocking.stages}}};
        candidate.predicted_seconds =
            predicted_seconds(0, bytes_moved(size, static_cast<int>(size.padded_rank)) / efficiency, facts);
        candidate.shared_bytes = shared_bytes(blocking, size.E, size.padded_rank);
        candidate.refusal = refusal_of(blocking, size, static_cast<unsigned>(candidate.shared_bytes), facts);
        space.push_back(std::move(candidate));
    }
    return space;
}

Step step_of(const GradientWork& work, const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    const Blocking blocking{at("BLOCKS"), at("STEP_ROWS"), at("STAGES")};
    Step step;
    auto& spec = step.spec;
    spec.family = family_name;
    spec.threads = lora_gradient_wgmma::threads;
    spec.dynamic_shared = shared_bytes(blocking, work.problem.E, padded_rank(work.problem));
    spec.constants = gradient_pair_constants(work);
    spec.constants.emplace_back("BLOCKS", blocking.blocks);
    spec.constants.emplace_back("STEP_ROWS", blocking.step_rows);
    spec.constants.emplace_back("STAGES", blocking.stages);
    step.column_tiles = gradient_tiles(work, lora_gradient_wgmma::span(blocking), work.problem.R);
    return step;
}

}  // namespace

const GradientFamily gradient_wgmma{.name = family_name, .candidates = candidates, .step = step_of};

}  // namespace smlora::families
