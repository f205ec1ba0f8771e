#include "families/roofline.hpp"

#include <cmath>

namespace smlora::families {

double predicted_seconds(double arithmetic_seconds, double bytes, const gpu::DeviceFacts& facts) {
    return std::hypot(arithmetic_seconds, bytes / facts.memory_bytes_per_second);
}

double longer_of(double a, double b, double sharpness) {
    return std::pow(std::pow(a, sharpness) + std::pow(b, sharpness), 1 / sharpness);
}

double last_to_mean(double pieces) {
    constexpr double rounding = 1e-9;  // of a whole number
    return pieces > 0 ? std::ceil(pieces - rounding) / pieces : 1;
}

}  // namespace smlora::families
