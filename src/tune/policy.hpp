// What an engine may do about choices that it does not know.
#pragma once

#include <smlora/tuning.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace smlora::tune {

/// The measurer has not run on a GPU yet: until it has, nothing is measured unless somebody asks for it.
inline constexpr TuningPolicy default_policy = TuningPolicy::record_only;

/// Of first use, for all that one operation needs on one problem and bucket.
inline constexpr double default_seconds = 10;

/// What was asked for, else SMLORA_TUNING, else default_policy. `complaint` is set when the variable is no policy and
/// was not followed.
[[nodiscard]] TuningPolicy policy(std::optional<TuningPolicy> asked, std::string& complaint);

}  // namespace smlora::tune
