// What numbers on the command line may be. CLI11's own checks complain in the digits of the largest double, take "nan"
// for a number in a range, and what is too large for the type becomes its largest value.
#pragma once

#include <CLI/App.hpp>

#include <cstdint>
#include <limits>

namespace smlora::tool {

/// "expected a whole number from 1 to 1024, got '0'"; without `most` "expected a whole number of at least 1, got '0'".
[[nodiscard]] CLI::Validator whole_number(std::int64_t least,
                                          std::int64_t most = std::numeric_limits<std::int64_t>::max());

/// A finite number above 0.
[[nodiscard]] CLI::Validator positive_number();

/// A number from 0 to 1.
[[nodiscard]] CLI::Validator share();

/// Digits 0 to 9 and a to f, as keys of the cache have them.
[[nodiscard]] CLI::Validator hexadecimal();

}  // namespace smlora::tool
