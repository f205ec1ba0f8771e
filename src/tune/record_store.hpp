// Records in the layers of the cache.
#pragma once

#include "tune/record.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::cache {
class Cache;
}
namespace smlora::util {
class Logger;
}

namespace smlora::tune {

/// What was measured for another number of tokens, or for another problem.
struct NearTuning {
    Tuning tuning;
    RecordName name;  ///< of its record
};

/// Thread-safe and process-safe. What is damaged or does not hold here is a miss.
class RecordStore {
 public:
    RecordStore(cache::Cache& cache, util::Logger& log) : cache_(cache), log_(log) {}

    /// What is known of `slot` in this environment: from the first layer where it is complete, else from the first that
    /// has a part of it.
    [[nodiscard]] std::optional<Tuning> find(const RecordName& name, std::string_view slot,
                                             const Environment& environment);

    /// The same from the nearest other record whose choice is legal in `space`: that of one of `relatives`, problems
    /// that are nearly the same, for the same bucket, then anyone's for the nearest other bucket, of those as near the
    /// own one's, then the first of `relatives`. The problem itself may be among them.
    [[nodiscard]] std::optional<NearTuning> find_near(const RecordName& name, const std::vector<std::string>& relatives,
                                                      std::string_view slot, const Environment& environment,
                                                      const SearchSpace& space);

    /// Puts a tuning into the writable layer's record, beside what that holds of other slots and environments. False
    /// when it cannot be written. Two processes that save at once may lose one of the two, which is measured again;
    /// with_lock keeps them apart.
    bool save(const RecordName& name, const Tuning& tuning);

    /// In what the environment of what is recorded differs; empty when nothing is, or something holds.
    [[nodiscard]] std::string why_unfit(const RecordName& name, std::string_view slot, const Environment& environment);

    /// Work on a record that one process should do for all, see Cache::with_lock.
    void with_lock(const RecordName& name, const std::function<void()>& work,
                   std::optional<std::chrono::milliseconds> patience = std::nullopt);

 private:
    [[nodiscard]] std::vector<Record> load(const RecordName& name, bool writable_only);

    cache::Cache& cache_;
    util::Logger& log_;
};

}  // namespace smlora::tune
