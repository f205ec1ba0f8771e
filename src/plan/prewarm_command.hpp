// The command that compiles what an operation needs.
#pragma once

#include "plan/request.hpp"

#include <smlora/problem.hpp>

#include <string>

namespace smlora::plan {

/// "smlora-tune prewarm --arch sm_90a --shape 128,2048,1536,16,8 --tokens 4096 ..", for the kernels of all operations
/// on `problem`, and of `request`'s number of tokens where it has one.
[[nodiscard]] std::string prewarm_command(const Problem& problem, const Request& request, const std::string& arch);

}  // namespace smlora::plan
