// Batch-invariant mode: kernels are chosen as if every batch had the same number of tokens.
//
// A kernel computes a row from its own inputs alone, in an order that depends on its constants. So the bits of a row
// depend on the batch through nothing but the choice of the kernel, which is made by the number of tokens.
#pragma once

#include <smlora/determinism.hpp>

#include <cstdint>
#include <optional>
#include <vector>

namespace smlora::tuning {

/// The tokens that batch-invariant choices are made for. Between a rollout's step and a long training batch, and among
/// those that the shipped records have.
inline constexpr std::int64_t batch_tokens = 4096;

/// What was asked for, else SMLORA_DETERMINISM, else run. Throws Error{invalid_argument} where either is no such value.
[[nodiscard]] Determinism determinism(std::optional<Determinism> asked);

/// The numbers of tokens that kernels of batches of `tokens` are chosen for: those, or batch_tokens alone.
[[nodiscard]] std::vector<std::int64_t> choice_tokens(Determinism determinism, std::vector<std::int64_t> tokens);

}  // namespace smlora::tuning
