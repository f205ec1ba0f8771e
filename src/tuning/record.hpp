// A tuning record: what was measured for one problem on one GPU at one bucket of T, as JSON that a person can read.
//
//   {
//     "format": 2,
//     "gpu": "NVIDIA H200",                   the record's name is these three; its file is named after a hash of them
//     "problem": "E128 K2048 N1536 ..",
//     "bucket": 11,                           about 2^11 tokens
//     "tunings": [                            one for each piece of work and environment
//       {
//         "slot": "forward",
//         "environment": {"gpu", "arch", "multiprocessors", "driver", "compiler", "templates"},
//         "date": "2026-11-23T10:11:12Z",
//         "workload": {"tokens": 2048, "routing": "uniform"},
//         "seed": 17,                         of the inputs that candidates were checked on; 0: no longer known
//         "seconds": 3.2,                     that measuring has taken in all
//         "complete": true,                   false: interrupted, the next measurement resumes it
//         "choice": {"family", ..},           null: no candidate was right, or none was timed yet
//         "reason": "4.1 % faster than the heuristic choice",
//         "candidates": [                     the heuristic choice first
//           {"name", "configuration", "predicted_us", "shared_bytes", "registers", "spill_bytes", "compile_seconds",
//            "verdict": "measured", "slow", "refused", "pending" or "running", "why", "error", "spent_seconds",
//            "timing": {"unit_us", "ratio", "deviation", "samples"},  of when the tuning was last complete; or null
//            "samples_us": [12.3, null, ..]}  since then, by round, null where it took no part
//         ]
//       }
//     ],
//     "xxh128": "0123456789abcdef0123456789abcdef"  the hash of all of the above as compact JSON
//   }
//
// Numbers that the writer did not know are 0. See bundle.hpp for many complete tunings in one file.
#pragma once

#include "tuning/tuning.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::tuning {

inline constexpr int record_format = 2;

/// Which record.
struct RecordName {
    std::string gpu;
    std::string problem;  ///< smlora::to_string(Problem)
    std::uint8_t bucket = 0;

    /// The name of its file: 32 hexadecimal digits, a hash of the three and the format.
    [[nodiscard]] std::string key() const;

    friend bool operator==(const RecordName&, const RecordName&) = default;
};

struct Record {
    RecordName name;
    std::vector<Tuning> tunings;

    /// The tuning of `slot` that holds for `environment`; null if there is none.
    [[nodiscard]] const Tuning* find(std::string_view slot, const Environment& environment) const;

    /// Puts a tuning in the place of the one of its slot that holds for the same environment, or beside the others. Of
    /// one slot only the latest few environments are kept.
    void put(const Tuning& tuning);
};

[[nodiscard]] std::string record_text(const Record& record);

/// Nothing, with the reason in `why`, unless every field is there and has its type, every tuning makes sense (its
/// choice is one of its candidates and was not refused), and the checksum is right.
[[nodiscard]] std::optional<Record> parse_record(const std::string& text, std::string& why);

}  // namespace smlora::tuning
