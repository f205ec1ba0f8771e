// What cost models know of a GPU's speed. Choices use only the order of predictions; their size is for people to read,
// and is as good as the table of typical GPUs (gpu/device.cpp).
#pragma once

#include "gpu/device.hpp"

namespace smlora::families {

/// From a launch to the first bytes of the kernel, and from its last ones to the next kernel: what is left of the
/// shortest that were measured, on an H200.
inline constexpr double seconds_of_launch = 5e-6;

/// Of a kernel whose arithmetic alone would take `arithmetic_seconds` and that moves `bytes`. Between the sum of both
/// and the larger one; rises with either, so that candidates that move the same bytes keep the order of their
/// arithmetic.
[[nodiscard]] double predicted_seconds(double arithmetic_seconds, double bytes, const gpu::DeviceFacts& facts);

/// Of two that take place at once and get in each other's way where they take about as long, less so the larger
/// `sharpness` is.
[[nodiscard]] double longer_of(double a, double b, double sharpness);

/// Equal pieces of work are dealt to as many workers as make `pieces` for each, on average: the time until the last is
/// done as a multiple of what it would be if all of them had as much.
[[nodiscard]] double last_to_mean(double pieces);

}  // namespace smlora::families
