#include "families/roofline.hpp"

#include <cmath>

namespace smlora::families {

double predicted_seconds(double arithmetic_seconds, double bytes, const gpu::DeviceFacts& facts) {
    return std::hypot(arithmetic_seconds, bytes / facts.memory_bytes_per_second);
}

}  // namespace smlora::families
