// Checks that several operations share.
#pragma once

#include <smlora/engine.hpp>
#include <smlora/operations.hpp>

#include <cstdint>

namespace smlora::check {

/// The problem by itself and on this backend.
void check_problem(const Problem& problem, Backend backend);

/// M = T * top_k, which must fit what the routing and the backend count rows in.
std::int64_t check_rows(const Problem& problem, std::int64_t T, Backend backend);

/// A routing as an input: sorted_expert_idxs may be missing.
void check_routing(const Problem& problem, const Routing& routing, std::int64_t M);

/// W, as the problem says that it is.
void check_weight(const Problem& problem, const Weight& W);

/// gates or dgates: [T, top_k], contiguous.
void check_gates(const char* argument, const Tensor& tensor, const Problem& problem, std::int64_t T);

}  // namespace smlora::check
