// A bundle: the complete tunings of one GPU in one file, to be read often and never changed: the records that come
// with smlora, a folder that a cluster shares, an archive. Samples are not in it, only what they came to.
//
// JSON Lines. The first member of a line tells what it is; lines stand in this order:
//
//   {"format":1,"gpu":"NVIDIA H200"}
//   {"environment":0,"arch":"sm_90a","multiprocessors":132,"driver":"13.0","compiler":"13.0.88","templates":"c0425d.."}
//       what tunings hold for, numbered from 0 in the order in which the tunings name them
//   {"candidate":"wgmma_144_by8_s4_32","configuration":{"family":..},"shared_bytes":{"x7Q":230280,"b0z":230376}}
//       sorted by name. Each amount of shared memory, which depends on the problem, has a key, which is how tunings
//       name a candidate. A key is the beginning of a hash: a further candidate changes no line of the others
//   {"problem":"E128 K2048 N1536 ..","bucket":11,"slot":"forward","date":"2026-11-26","seconds":3.2,
//    "choice":"x7Q","us":342.1,"candidates":[["x7Q",100000,0,18],["b0z",103421,210,9],..]}
//       a tuning, sorted by problem, bucket, slot and environment. "environment" stands behind "slot" unless it is 0,
//       "tokens" and "routing" behind "seconds" unless they are 2^bucket and "uniform". "choice": null if no candidate
//       was right. "us": the yardstick's time, missing if nothing was timed. Of each candidate, the heuristic choice
//       first:
//         ["x7Q",ratio,deviation,samples]         see Timing; ratio and deviation in hundred-thousandths
//         ["x7Q",ratio,deviation,samples,"slow"]  dropped after its first round
//         ["x7Q","why"]                           refused
//   {"lines":350,"xxh128":"0123456789abcdef0123456789abcdef"}
//       the last one: how many lines stand before it, and the hash of them, newlines included
//
// A bundle is used as a whole or not at all: a damaged number could be any other, so that no line of a file whose
// checksum is wrong can be trusted. Two branches that both change a bundle are merged by export, not by hand.
#pragma once

#include "tuning/record.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace smlora::tuning {

inline constexpr int bundle_format = 1;

class Bundle {
 public:
    /// Nothing, with the line and the reason in `why`, unless all of it is sound.
    [[nodiscard]] static std::optional<Bundle> parse(std::string_view text, std::string& why);

    [[nodiscard]] const std::string& gpu() const { return gpu_; }
    [[nodiscard]] std::size_t tunings() const { return lines_.size(); }

    /// The tuning of `slot` that holds for `environment`, if there is one.
    [[nodiscard]] std::optional<Tuning> find(std::string_view problem, std::uint8_t bucket, std::string_view slot,
                                             const Environment& environment) const;

    /// Of the tunings of `slot`, whether or not they hold here.
    [[nodiscard]] std::vector<Environment> environments(std::string_view problem, std::uint8_t bucket,
                                                        std::string_view slot) const;

    /// All of it, by problem and bucket.
    [[nodiscard]] std::vector<Record> records() const;

 private:
    /// What a tuning says of a candidate, which is `candidates_[candidate]`.
    struct Entry {
        std::uint32_t candidate = 0;
        Verdict verdict = Verdict::measured;
        std::int32_t ratio = 0;
        std::int32_t deviation = 0;
        std::int32_t samples = 0;
        std::string why;
    };
    /// Much smaller than the tuning that it becomes; a process needs a handful of those in a bundle.
    struct Line {
        std::uint32_t environment = 0;
        std::string date;
        double seconds = 0;
        Workload workload;
        double unit_seconds = 0;
        std::optional<std::uint32_t> choice;
        std::vector<Entry> entries;
    };
    using Key = std::tuple<std::string, std::uint8_t, std::string>;  ///< problem, bucket, slot
    using KeyView = std::tuple<std::string_view, std::uint8_t, std::string_view>;
    /// Orders keys and looks for views of them. (std::less<> does, but not in clang 14.)
    struct Before {
        using is_transparent = void;
        bool operator()(const KeyView& a, const KeyView& b) const { return a < b; }
    };

    class Reader;

    [[nodiscard]] Tuning tuning_of(const std::string& slot, const Line& line) const;

    std::string gpu_;
    std::vector<Environment> environments_;
    std::vector<Candidate> candidates_;  ///< a candidate for each amount of shared memory
    std::multimap<Key, Line, Before> lines_;
};

/// The complete tunings of `records`, which are all of `gpu`. The same tunings make the same text, in whatever order
/// they come.
[[nodiscard]] std::string bundle_text(const std::string& gpu, const std::vector<Record>& records);

}  // namespace smlora::tuning
