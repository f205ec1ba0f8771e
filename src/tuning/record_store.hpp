// Records in the layers of the cache.
#pragma once

#include "tuning/bundle.hpp"
#include "tuning/record.hpp"
#include "util/file_system.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::cache {
class Cache;
struct RecordText;
struct StoredFile;
}  // namespace smlora::cache
namespace smlora::util {
class Logger;
}

namespace smlora::tuning {

/// The records in the file of a record or bundle. Nothing, with the reason in `why`, unless it is sound and lies under
/// its own name.
[[nodiscard]] std::optional<std::vector<Record>> records_in(const cache::RecordText& stored, std::string& why);

/// What was measured for another number of tokens, or for another problem.
struct NearTuning {
    Tuning tuning;
    RecordName name;  ///< of its record
};

/// Thread-safe and process-safe. What is damaged or does not hold here is a miss. In a layer a record goes before a
/// bundle. A file is parsed once and remembered until it is another one, by its inode, size and time of modification.
class RecordStore {
 public:
    RecordStore(cache::Cache& cache, util::Logger& log) : cache_(cache), log_(log) {}

    /// What is known of `slot` in this environment: from the first layer where it is complete, else from the first that
    /// has a part of it. Nothing without memory for it.
    [[nodiscard]] std::optional<Tuning> find(const RecordName& name, std::string_view slot,
                                             const Environment& environment);

    /// The same from the nearest other record whose choice is legal in `space`. `relatives` are problems that are
    /// nearly the same; the problem itself may be among them. First come their records for the same bucket; then the
    /// nearest other bucket of any. Of equally near records the problem's own comes first, then the first relative's.
    [[nodiscard]] std::optional<NearTuning> find_near(const RecordName& name, const std::vector<std::string>& relatives,
                                                      std::string_view slot, const Environment& environment,
                                                      const SearchSpace& space);

    /// Puts a tuning into the writable layer's record, which keeps its tunings of other slots and environments. False
    /// when it cannot be written. Two processes that save at once may lose one of the two, which is measured again;
    /// with_lock keeps them apart.
    bool save(const RecordName& name, const Tuning& tuning);

    /// How the recorded environment differs from this one; empty when nothing is recorded, or something holds.
    [[nodiscard]] std::string why_unfit(const RecordName& name, std::string_view slot, const Environment& environment);

    /// Work on a record that one process should do for all, see Cache::with_lock.
    void with_lock(const RecordName& name, const std::function<void()>& work,
                   std::optional<std::chrono::milliseconds> patience = std::nullopt);

 private:
    /// What a file holds: a record or a bundle; neither if it is unsound.
    struct Known {
        util::FileStatus status;
        std::int64_t read_at = 0;  ///< nanoseconds since 1970
        std::shared_ptr<const Record> record;
        std::shared_ptr<const Bundle> bundle;

        /// Whether it was read from the file that has this status now.
        [[nodiscard]] bool is_of(const util::FileStatus& now) const;
    };

    [[nodiscard]] std::optional<Tuning> find_anywhere(const RecordName& name, std::string_view slot,
                                                      const Environment& environment);
    [[nodiscard]] Known known(const cache::StoredFile& stored);
    [[nodiscard]] Known parse(const cache::StoredFile& stored);
    /// Of the files of all layers, in the order in which they are consulted.
    [[nodiscard]] std::vector<Known> known(const std::vector<cache::StoredFile>& files);
    [[nodiscard]] std::optional<Tuning> find_in(const std::vector<Known>& sources, const RecordName& name,
                                                std::string_view slot, const Environment& environment) const;
    /// How the environment of the first tuning of `slot` differs from this one; empty when one of them holds.
    [[nodiscard]] static std::string first_mismatch(const std::vector<Known>& sources, const RecordName& name,
                                                    std::string_view slot, const Environment& environment);

    cache::Cache& cache_;
    util::Logger& log_;
    std::mutex mutex_;
    std::map<std::filesystem::path, Known> known_;  ///< guarded by mutex_
};

}  // namespace smlora::tuning
