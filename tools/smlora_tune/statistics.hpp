// What is said of a number of timings.
#pragma once

#include <vector>

namespace smlora::tool {

/// The q-quantile, interpolated between neighbours; 0 for no samples.
[[nodiscard]] double quantile(std::vector<double> samples, double q);

[[nodiscard]] double median(const std::vector<double>& samples);

/// The interquartile range over the median: robust against the odd interruption.
[[nodiscard]] double spread(const std::vector<double>& samples);

}  // namespace smlora::tool
