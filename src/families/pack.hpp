// Repacking an adapter's matrices for the kernels that read them.
#pragma once

#include "families/adapter.hpp"
#include "families/launcher.hpp"
#include "families/step.hpp"

#include <smlora/problem.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <optional>

namespace smlora::families {

/// The dimension of a matrix [E, outer, inner] with the smallest stride. The numbers are the template's.
enum class Fastest : std::uint8_t { inner = 0, outer = 1, expert = 2 };

/// Which matrices must be repacked before the kernels can read them, and how those lie; nothing for one that need not.
struct Packing {
    std::optional<Fastest> a;
    std::optional<Fastest> b;

    friend bool operator==(const Packing&, const Packing&) = default;
};

/// For the matrices that a call reads; one that it does not read is not given.
[[nodiscard]] Packing packing_of(const Problem& problem, const Tensor& A, const Tensor& B, bool tensor_cores);

[[nodiscard]] Step pack_a_step(const Problem& problem, Fastest fastest);
[[nodiscard]] Step pack_b_step(const Problem& problem, Fastest fastest);

/// Bytes of the packed A [E, padded rank, K] or B [E, N, padded rank].
[[nodiscard]] std::int64_t packed_a_bytes(const Problem& problem);
[[nodiscard]] std::int64_t packed_b_bytes(const Problem& problem);

/// A or B as the kernels read it: packed into `memory` by `pack`, or as it lies without a step.
[[nodiscard]] AdapterMatrix adapter_a(const Launcher& launcher, const Step* pack, const Problem& problem,
                                      const Tensor& A, void* memory);
[[nodiscard]] AdapterMatrix adapter_b(const Launcher& launcher, const Step* pack, const Problem& problem,
                                      const Tensor& B, void* memory);

}  // namespace smlora::families
