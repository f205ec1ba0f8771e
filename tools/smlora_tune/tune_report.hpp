// What smlora-tune tune says about what it did.
#pragma once

#include "smlora_tune/exit_code.hpp"
#include "smlora_tune/shape_options.hpp"

#include "autotune/tuner.hpp"

#include <smlora/tune.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace smlora::tool {

/// A problem at a number of tokens, and what became of its kernels.
struct TunedCase {
    NamedProblem item;
    std::int64_t T = 0;
    std::vector<TunedWork> works;
    std::vector<autotune::Comparison> comparisons;
};

[[nodiscard]] nlohmann::ordered_json to_json(const TunedCase& done);

/// `skew`: how rows were to be routed, so that what was measured otherwise is marked.
void print_text(const TunedCase& done, const std::string& skew);

/// Over all kernels that were compared with every candidate: the worst, and the geometric mean.
void print_distances(const std::vector<TunedCase>& cases);

/// A failure, with a remark, when a kernel was left without a measured choice: a training job would run it untuned.
[[nodiscard]] ExitCode verdict_on(const std::vector<TunedCase>& cases, double budget);

}  // namespace smlora::tool
