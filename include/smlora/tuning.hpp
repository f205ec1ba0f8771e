// How kernels are chosen among candidates that compute the same.
#pragma once

#include <smlora/export.hpp>

#include <cstdint>
#include <string_view>

namespace smlora {

/// Where choices come from.
enum class TuningPolicy : std::int32_t {
    first_use = 0,    ///< a recorded choice, else candidates are measured when an operation first runs on a shape
    off = 1,          ///< the heuristic choice, by the cost models alone
    record_only = 2,  ///< a recorded choice, else the nearest recorded one, else the heuristic one
};

/// "first-use", "off", "record-only".
[[nodiscard]] SMLORA_API std::string_view name(TuningPolicy policy);

/// The inverse of name(). Throws Error{invalid_argument}.
[[nodiscard]] SMLORA_API TuningPolicy tuning_policy_from_name(std::string_view text);

}  // namespace smlora
