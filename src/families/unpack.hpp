// Decoding quantised weights.
#pragma once

#include "args/unpack_weights.h"
#include "families/launcher.hpp"
#include "families/step.hpp"
#include "gpu/device.hpp"

#include <smlora/problem.hpp>
#include <smlora/weight.hpp>

#include <cstdint>

namespace smlora::families {

/// What the kernel is specialised for: all of a weight but the number of experts and the memory.
struct UnpackWork {
    WeightFormat format;
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    bool vectors = false;  ///< 16 bytes of the result, and its codes, at once

    friend bool operator==(const UnpackWork&, const UnpackWork&) = default;
};

/// The same of what arranges scales.
struct ArrangeWork {
    WeightFormat format;  ///< of the scales as they are given
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    bool words = false;  ///< whether codes are read in words

    friend bool operator==(const ArrangeWork&, const ArrangeWork&) = default;
};

/// `out`: as UnpackWeightsArgs has it, of this type.
[[nodiscard]] UnpackWork unpack_work(const Weight& weight, const void* out, DType dtype);

/// Of weights as the problem describes them, whose memory is aligned to 16 bytes.
[[nodiscard]] UnpackWork aligned_unpack_work(const Problem& problem);

[[nodiscard]] ArrangeWork arrange_work(const Weight& weight);

/// Of scales that become those of the problem's arranged weights, in the usual form: fp32 where others are possible.
[[nodiscard]] ArrangeWork aligned_arrange_work(const Problem& problem);

/// Unless the caller says otherwise.
inline constexpr std::uint64_t default_unpack_limit = std::uint64_t{256} << 20;

/// Experts whose matrices are unpacked at once, so that these take at most `limit` bytes, or one of them: a number for
/// equal slices, of which the last may lack some.
[[nodiscard]] std::int64_t slice_experts(const Problem& problem, std::uint64_t limit);

/// Bytes of the matrices of so many experts.
[[nodiscard]] std::int64_t unpacked_bytes(const Problem& problem, std::int64_t experts);

/// To problem.dtype; with the routing of problem.index_dtype.
[[nodiscard]] Step unpack_step(const Problem& problem, const UnpackWork& work, const gpu::DeviceFacts& facts);

/// The scales in the order of products that decode.
[[nodiscard]] Step arrange_scales_step(const ArrangeWork& work);

/// All experts into `out`. A caller that wants some of them says so.
[[nodiscard]] UnpackWeightsArgs unpack_args(const Weight& weight, void* out);

void launch_unpack(const Launcher& launcher, const Step& step, const UnpackWeightsArgs& args);

}  // namespace smlora::families
