// How many bytes the kernels and records of a layer have, as those who write to it count: so a store need not look
// through the layer to know whether it exceeds the limit.
//
// The number stands at the start of the lock file and is changed under a lock of its own. What a process that dies or a
// file system without locks leaves out is put right by the next upkeep, which counts anew.
#pragma once

#include "cache/file_clock.hpp"
#include "cache/folder.hpp"

#include <cstdint>
#include <functional>
#include <optional>

namespace smlora::cache {

/// The count of a layer that nobody has counted begins here, beyond every limit, so that the next store has it counted.
inline constexpr std::uint64_t uncounted = std::uint64_t{1} << 62;

/// What the count is; `uncounted` or more when it is not known.
[[nodiscard]] std::uint64_t read_count(const Layer& layer);

/// Sets the count to what `change` makes of it; the new one, or nothing if it cannot be written. The clock learns the
/// time from it.
std::optional<std::uint64_t> change_count(const Layer& layer, FileClock& clock,
                                          const std::function<std::uint64_t(std::uint64_t)>& change);

/// Takes so many bytes off the count, if there is one.
void count_removed(const Layer& layer, FileClock& clock, std::uint64_t bytes);

}  // namespace smlora::cache
