// Running every operation of a problem and comparing its results with the reference.
#pragma once

#include "smlora_tune/operands.hpp"
#include "smlora_tune/session.hpp"
#include "workload/comparison.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::tool {

/// One output of one operation.
struct Check {
    std::string operation;
    std::string output;
    bool exact = false;  ///< must equal the reference bit for bit
    workload::Difference difference;
    double tolerance = 0;
    bool repeatable = true;  ///< a second run gave the same bits
    std::size_t non_finite = 0;

    [[nodiscard]] bool ok() const {
        return difference.relative <= tolerance && difference.worst_row <= tolerance * workload::single_factor &&
               repeatable && non_finite == 0;
    }
};

/// Runs route, group, scatter2scatter, forward, backward_input, backward_lora, combine, combine_backward and the
/// activations of `problem` twice each, outputs poisoned before. The reference is computed for `sample` of the tokens
/// (0: all), and for gradients of the adapter for as many experts as have about as many rows. `tell` is given a word on
/// what is going on.
[[nodiscard]] std::vector<Check> verify_problem(const Session& session, const Problem& problem,
                                                const OperandOptions& options, std::int64_t sample,
                                                const std::function<void(std::string_view)>& tell);

}  // namespace smlora::tool
