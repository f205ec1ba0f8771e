// Whether a tuning record could be used as it is: what the project checks of the records that it ships.
#pragma once

#include "cache/layer.hpp"
#include "jit/kernel_library.hpp"

#include <smlora/problem.hpp>

#include <optional>
#include <string>
#include <vector>

namespace smlora::autotune {

/// The inverse of to_string(Problem); nothing for a text that is none.
[[nodiscard]] std::optional<Problem> problem_from_text(const std::string& text);

struct RecordCheck {
    /// It is damaged, under another's name, or names what is no piece of work or no candidate.
    std::vector<std::string> unsound;
    /// It was measured with other templates than those of `kernels`: a miss.
    std::vector<std::string> stale;
};

[[nodiscard]] RecordCheck check_record(const cache::RecordText& stored, const jit::KernelLibrary& kernels);

}  // namespace smlora::autotune
