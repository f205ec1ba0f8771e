// What the parts of a measurement ask of trials, and how a candidate is put out of a tuning.
#pragma once

#include "tuning/tuning.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::tuning {

/// The trial that the others are compared with, as estimates() has it: the first that is not refused; behind the last
/// when all are.
[[nodiscard]] std::size_t yardstick(const std::vector<Trial>& trials);

/// Whether it is to be timed: it has no verdict yet, or is the yardstick.
[[nodiscard]] bool takes_part(const std::vector<Trial>& trials, std::size_t index);

/// Whether each has its verdict.
[[nodiscard]] bool all_decided(const std::vector<Trial>& trials);

/// Rounds that any of them has samples of.
[[nodiscard]] std::size_t rounds_so_far(const std::vector<Trial>& trials);

void refuse(Trial& trial, std::string why);

/// It failed on the device, or its process ended. That may not be its fault: it is refused the second time.
void note_failure(Trial& trial, std::string_view how);

}  // namespace smlora::tuning
