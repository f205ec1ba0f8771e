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
#include <string>
#include <string_view>

namespace smlora::cache {

struct UseCounts {
    std::uint64_t hits = 0;       ///< kernels found in a layer
    std::uint64_t misses = 0;     ///< kernels that had to be compiled
    std::uint64_t evictions = 0;  ///< kernels and records removed because the layer was over its limit

    friend bool operator==(const UseCounts&, const UseCounts&) = default;
};

/// A line of the file.
[[nodiscard]] std::string encode_use_counts(const UseCounts& counts);

/// The sum of the lines of `text`. Those that make no sense are passed over, as is a line without an end.
[[nodiscard]] UseCounts decode_use_counts(std::string_view text);

/// Appends a line, unless all are zero or it cannot be done.
void append(const Layer& layer, const UseCounts& counts);

/// The sum of the file's lines; zero where it is missing. Throws Error{io} for a file that cannot be read.
[[nodiscard]] UseCounts sum(const Layer& layer);

}  // namespace smlora::cache
