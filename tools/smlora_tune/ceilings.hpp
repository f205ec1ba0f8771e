// What the device reaches at best, measured beside the operations.
#pragma once

#include "smlora_tune/floor.hpp"
#include "smlora_tune/timing.hpp"

#include <smlora/dtype.hpp>

#include <string>

namespace smlora::tool {

struct MeasuredCeilings {
    Ceilings value;
    std::string flop_source;  ///< where value.flop_per_second comes from, in words
    std::string bytes_source;
};

/// Arithmetic: smlora's own dense product in `dtype`, one expert and no adapter (a vendor's library may do better, so
/// fractions of a floor made from it flatter). Memory: a copy on the device, bytes read and written. A positive
/// `tflops` or `gbs` is taken as given instead.
[[nodiscard]] MeasuredCeilings measure_ceilings(Session& session, Timer& timer, DType dtype, double tflops, double gbs);

}  // namespace smlora::tool
