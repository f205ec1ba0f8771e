// What processes did with the writable layer: v1/uses has lines
//
//   HITS MISSES EVICTIONS
//
// which a process appends when it ends, or when it is told to. No process reads the file or waits for another one, and
// a hit costs no write. A process that is killed is not counted, and where several machines append to one network file
// system at the same moment, one of the lines may be lost.
#pragma once

#include "cache/folder.hpp"

#include <cstdint>

namespace smlora::cache {

struct UseCounts {
    std::uint64_t hits = 0;       ///< kernels found in a layer
    std::uint64_t misses = 0;     ///< kernels that had to be compiled
    std::uint64_t evictions = 0;  ///< kernels and records removed because the layer was over its limit
};

/// Appends a line, unless all are zero or it cannot be done.
void append(const Layer& layer, const UseCounts& counts);

/// The sum; zero where the file is missing. Lines that make no sense are passed over. Throws Error{io} for a file that
/// cannot be read.
[[nodiscard]] UseCounts sum(const Layer& layer);

}  // namespace smlora::cache
