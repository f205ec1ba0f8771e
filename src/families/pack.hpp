// Repacking an adapter's matrices for the kernels that read them.
#pragma once

#include "args/pack_adapter.h"
#include "families/adapter.hpp"
#include "families/launcher.hpp"
#include "families/step.hpp"
#include "gpu/device.hpp"

#include <smlora/problem.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <optional>

namespace smlora::families {

using pack_adapter::Fastest;

/// How a matrix lies that must be repacked, as the kernel is specialised for it.
struct PackWork {
    Fastest fastest = Fastest::inner;
    bool vectors = false;  ///< 16 bytes at once: with inner fastest of the matrix, else of its packed rows

    friend bool operator==(const PackWork&, const PackWork&) = default;
};

/// Which matrices must be repacked before the kernels can read them; nothing for one that need not.
struct Packing {
    std::optional<PackWork> a;
    std::optional<PackWork> b;

    friend bool operator==(const Packing&, const Packing&) = default;
};

/// For the matrices that a call reads; one that it does not read is not given.
[[nodiscard]] Packing packing_of(const Problem& problem, const Tensor& A, const Tensor& B, bool tensor_cores);

/// How an adapter [E, R, K] or [E, N, R] lies that is contiguous and 16-byte aligned.
[[nodiscard]] PackWork aligned_pack_a(const Problem& problem);
[[nodiscard]] PackWork aligned_pack_b(const Problem& problem);

[[nodiscard]] Step pack_a_step(const Problem& problem, const PackWork& work, const gpu::DeviceFacts& facts);
[[nodiscard]] Step pack_b_step(const Problem& problem, const PackWork& work, const gpu::DeviceFacts& facts);

/// Bytes of the packed A [E, padded rank, K] or B [E, N, padded rank].
[[nodiscard]] std::int64_t packed_a_bytes(const Problem& problem);
[[nodiscard]] std::int64_t packed_b_bytes(const Problem& problem);

/// A or B as the kernels read it: packed into `memory` by `pack`, or as it lies without a step.
[[nodiscard]] AdapterMatrix adapter_a(const Launcher& launcher, const Step* pack, const Problem& problem,
                                      const Tensor& A, void* memory);
[[nodiscard]] AdapterMatrix adapter_b(const Launcher& launcher, const Step* pack, const Problem& problem,
                                      const Tensor& B, void* memory);

}  // namespace smlora::families
