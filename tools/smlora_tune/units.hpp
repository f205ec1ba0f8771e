// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace smlora::tool {

/// "17 B", "1.5 KiB", "2.0 GiB".
[[nodiscard]] std::string bytes_text(std::uint64_t bytes);

/// Four digits in a unit that fits: "3.210 us", "12.35 ms", "1.500 s".
[[nodiscard]] std::string seconds_text(double seconds);

/// Whole seconds for clocks, estimates and ages: "7 s", "3 min 20 s", "1 h 05 min", "30 d 02 h".
[[nodiscard]] std::string duration_text(double seconds);

/// 13000 -> "13.0", as CUDA encodes versions.
[[nodiscard]] std::string cuda_version_text(int version);

}  // namespace smlora::tool
