#include "families/roofline.hpp"

#include <cmath>

namespace smlora::families {

double mma_flop_per_second(const gpu::DeviceFacts& facts) {
    // Hopper's mma.sync reaches 450 of 796 TFLOP/s (docs/lab/2026-11-23-portable.md); elsewhere it is the tensor
    // cores' own instruction, and four fifths are usual.
    const double share = facts.arch.number() == 90 ? 0.565 : 0.8;
    return share * facts.tensor_flop_per_second;
}

double predicted_seconds(double arithmetic_seconds, double bytes, const gpu::DeviceFacts& facts) {
    return std::hypot(arithmetic_seconds, bytes / facts.memory_bytes_per_second);
}

}  // namespace smlora::families
