// What an engine may do about choices that it does not know.
#pragma once

#include <smlora/tuning.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace smlora::tuning {

inline constexpr TuningPolicy default_policy = TuningPolicy::first_use;

/// Of first use, for all operations together on one problem and bucket.
inline constexpr double default_seconds = 10;

/// What was asked for, else SMLORA_TUNING, else default_policy. `complaint` is set when the variable is no policy and
/// was not followed.
[[nodiscard]] TuningPolicy policy(std::optional<TuningPolicy> asked, std::string& complaint);

}  // namespace smlora::tuning
