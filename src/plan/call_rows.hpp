// The rows of a call.
#pragma once

#include <smlora/operations.hpp>

#include <cstdint>

namespace smlora::plan {

/// Sorted by expert, on the device.
struct CallRows {
    Routing routing;
    std::int64_t T = 0;
};

}  // namespace smlora::plan
