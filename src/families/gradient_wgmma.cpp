#include "families/gradient_wgmma.hpp"

#include "args/lora_gradient_wgmma.h"
#include "families/shared_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace smlora::families {
namespace {

constexpr const char* wgmma_gradient_name = "lora_gradient_wgmma";

unsigned shared_bytes(const lora_gradient_wgmma::Blocking& blocking, std::int64_t E, std::int64_t rank) {
    return static_cast<unsigned>(
        lora_gradient_wgmma::shared_memory(blocking, static_cast<int>(E), static_cast<int>(rank)).bytes);
}

std::string refusal_of(const lora_gradient_wgmma::Blocking& blocking, const GradientSize& size, unsigned bytes,
                       const gpu::DeviceFacts& facts) {
    if (facts.arch.name() != "sm_90a") return "wgmma is an instruction of sm_90a, not of " + facts.arch.name();
    if (blocking.blocks * size.padded_rank > lora_gradient_wgmma::most_sums)
        return "a warpgroup's sums do not fit its registers";
    return shared_memory_refusal(bytes, 1, facts);
}

/// Fitted to an H200, eight models and a sweep, ranks 1 to 256, 1 to 65,536 tokens and 8 to 1024 experts:
/// docs/lab/2026-11-30-cost-model.md.
double predicted(const GradientWork& work, const GradientSize& size, const lora_gradient_wgmma::Blocking& blocking,
                 const gpu::DeviceFacts& facts) {
    constexpr double seconds_of_step = 0.28e-6;    // of the warpgroup that copies, which is the slower one
    constexpr double seconds_of_copy = 0.019e-6;   // more, of 16 rows of 64 columns
    constexpr double seconds_of_gates = 0.063e-6;  // more, of 16 rows
    constexpr double seconds_of_sums = 0.06e-6;    // of a warpgroup's 64 columns of 8 ranks
    constexpr double seconds_of_end = 0.19e-6;     // of 64 columns of 16 ranks, written when nothing is left to copy
    const SpanSize spans = span_size(
        work, {.columns = lora_gradient_wgmma::span(blocking), .unit = lora_gradient_wgmma::block_columns}, facts);
    // A chunk without rows has one, too.
    const double steps = std::max(spans.steps(blocking.step_rows), spans.chunks);
    const double passes = blocking.step_rows / 16.0;
    const auto ranks = static_cast<double>(size.padded_rank);
    double seconds = 0;
    for (const SpanSize::Side& side : spans.sides) {
        const double copies = passes * (seconds_of_copy * side.columns / lora_gradient_wgmma::block_columns +
                                        (size.gates ? seconds_of_gates : 0));
        seconds += side.spans *
                   (steps * (seconds_of_step + copies) + spans.chunks * seconds_of_sums * blocking.blocks * ranks / 8);
    }
    return predicted_gradient_seconds(spans.last_to_mean * seconds / facts.multiprocessors, spans.bytes, facts) +
           seconds_of_end * blocking.blocks * std::max(ranks, 16.0) / 16;
}

tuning::SearchSpace wgmma_gradient_candidates(const GradientWork& work, const gpu::DeviceFacts& facts) {
    const GradientSize size = gradient_size(work);
    tuning::SearchSpace space;
    constexpr std::array blockings{
        lora_gradient_wgmma::Blocking{8, 32, 3}, lora_gradient_wgmma::Blocking{4, 64, 3},
        lora_gradient_wgmma::Blocking{4, 32, 6}, lora_gradient_wgmma::Blocking{2, 64, 4},
        lora_gradient_wgmma::Blocking{1, 64, 4},
    };
    for (const lora_gradient_wgmma::Blocking& blocking : blockings) {
        tuning::Candidate candidate;
        candidate.name =
            fmt::format("wgmma_{}x{}_s{}", lora_gradient_wgmma::span(blocking), blocking.step_rows, blocking.stages);
        candidate.configuration = {
            wgmma_gradient_name,
            {{"BLOCKS", blocking.blocks}, {"STEP_ROWS", blocking.step_rows}, {"STAGES", blocking.stages}}};
        candidate.predicted_seconds = predicted(work, size, blocking, facts);
        candidate.shared_bytes = shared_bytes(blocking, size.E, size.padded_rank);
        candidate.refusal = refusal_of(blocking, size, static_cast<unsigned>(candidate.shared_bytes), facts);
        space.push_back(std::move(candidate));
    }
    return space;
}

Step wgmma_gradient_step(const GradientWork& work, const tuning::Configuration& configuration) {
    const auto at = [&](const char* name) { return static_cast<int>(configuration.at(name)); };
    const lora_gradient_wgmma::Blocking blocking{at("BLOCKS"), at("STEP_ROWS"), at("STAGES")};
    Step step;
    auto& spec = step.spec;
    spec.family = wgmma_gradient_name;
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

const GradientFamily gradient_wgmma{
    .name = wgmma_gradient_name, .candidates = wgmma_gradient_candidates, .step = wgmma_gradient_step};

}  // namespace smlora::families
