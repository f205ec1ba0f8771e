#include "families/gradient_wgmma.hpp"

#include "args/lora_gradient_wgmma.h"
#include "families/roofline.hpp"
#include "families/shared_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace smlora::families {
namespace {

using lora_gradient_wgmma::Blocking;

constexpr const char* family_name = "lora_gradient_wgmma";

unsigned shared_bytes(const Blocking& blocking, std::int64_t E, std::int64_t rank) {
    return static_cast<unsigned>(
        lora_gradient_wgmma::shared_memory(blocking, static_cast<int>(E), static_cast<int>(rank)).bytes);
}

std::string refusal_of(const Blocking& blocking, const GradientSize& size, unsigned bytes,
                       const gpu::DeviceFacts& facts) {
    if (facts.arch.name() != "sm_90a") return "wgmma is an instruction of sm_90a, not of " + facts.arch.name();
    if (blocking.blocks * size.padded_rank > lora_gradient_wgmma::most_sums)
        return "a warpgroup's sums do not fit its registers";
    return shared_memory_refusal(bytes, 1, facts);
}

/// Fitted to an H200, ranks 1 to 256 and 1 to 65,536 tokens: docs/lab/2026-11-29-gradients.md.
double predicted(const GradientWork& work, const GradientSize& size, const Blocking& blocking,
                 const gpu::DeviceFacts& facts) {
    constexpr double seconds_of_item = 0.2e-6;
    constexpr double seconds_of_block = 0.14e-6;  // more, of each that is written
    constexpr double seconds_of_step = 0.2e-6;    // of the warpgroup that copies
    constexpr double seconds_of_pass = 0.1e-6;    // more, of each 16 rows
    constexpr double cost_of_l2 = 0.35;           // of a byte read again, beside one of memory
    const double spans = gradient_tiles(work, lora_gradient_wgmma::span(blocking), work.problem.R);
    const auto experts = static_cast<double>(size.E);
    const double rows = size.rows_per_expert * experts;
    const double busy = experts * (1 - std::exp(-size.rows_per_expert));
    const double steps = std::max(rows / blocking.step_rows + busy / 2, busy);
    const double seconds = spans * (experts * (seconds_of_item + seconds_of_block * blocking.blocks) +
                                    steps * (seconds_of_step + seconds_of_pass * blocking.step_rows / 16));
    const double ranks_again = 2 * rows * static_cast<double>(size.padded_rank) * std::max(0.0, spans - 2);
    return predicted_seconds(seconds / facts.multiprocessors, size.bytes + cost_of_l2 * ranks_again, facts);
}

tuning::SearchSpace candidates(const GradientWork& work, const gpu::DeviceFacts& facts) {
    const GradientSize size = gradient_size(work, facts);
    tuning::SearchSpace space;
    constexpr std::array blockings{
        Blocking{8, 32, 3}, Blocking{4, 64, 3}, Blocking{4, 32, 6}, Blocking{2, 64, 4}, Blocking{1, 64, 4},
    };
    for (const Blocking& blocking : blockings) {
        tuning::Candidate candidate;
        candidate.name =
            fmt::format("wgmma_{}x{}_s{}", lora_gradient_wgmma::span(blocking), blocking.step_rows, blocking.stages);
        candidate.configuration = {
            family_name, {{"BLOCKS", blocking.blocks}, {"STEP_ROWS", blocking.step_rows}, {"STAGES", blocking.stages}}};
        candidate.predicted_seconds = predicted(work, size, blocking, facts);
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
    step.takes_items = true;
    step.column_tiles = gradient_tiles(work, lora_gradient_wgmma::span(blocking), work.problem.R);
    return step;
}

}  // namespace

const GradientFamily gradient_wgmma{.name = family_name, .candidates = candidates, .step = step_of};

}  // namespace smlora::families
