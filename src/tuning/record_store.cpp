#include "tuning/record_store.hpp"

#include "cache/cache.hpp"
#include "tuning/bucket.hpp"
#include "util/log.hpp"

#include <fmt/format.h>

#include <new>
#include <set>
#include <utility>

namespace smlora::tuning {
namespace {

using std::chrono::nanoseconds;

// A file that was written again so soon after it was read may look the same: file systems keep times to some
// milliseconds only, and give the inode of a file that was replaced to the next one.
constexpr nanoseconds settled_after = std::chrono::seconds(1);

std::int64_t now() {
    return std::chrono::duration_cast<nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// The record, if it lies under its own name.
std::optional<Record> record_in(const cache::RecordText& stored, std::string& why) {
    std::optional<Record> record = parse_record(stored.text, why);
    if (!record) return std::nullopt;
    if (record->name.key() == stored.key && cache::record_folder(record->name.gpu) == stored.folder) return record;
    why = "it is the record of another problem, GPU or number of tokens";
    return std::nullopt;
}

std::optional<Bundle> bundle_in(const cache::RecordText& stored, std::string& why) {
    std::optional<Bundle> bundle = Bundle::parse(stored.text, why);
    if (!bundle || cache::record_folder(bundle->gpu()) == stored.folder) return bundle;
    why = fmt::format("it is the bundle of another GPU: {}", bundle->gpu());
    return std::nullopt;
}

}  // namespace

std::optional<std::vector<Record>> records_in(const cache::RecordText& stored, std::string& why) {
    if (stored.is_bundle()) {
        const std::optional<Bundle> bundle = bundle_in(stored, why);
        return bundle ? std::optional(bundle->records()) : std::nullopt;
    }
    std::optional<Record> record = record_in(stored, why);
    return record ? std::optional(std::vector<Record>{std::move(*record)}) : std::nullopt;
}

bool RecordStore::Known::is_of(const util::FileStatus& now) const {
    return status.same_file(now) && status.owner == now.owner && status.permissions == now.permissions &&
           read_at - status.modified > settled_after.count();
}

RecordStore::Known RecordStore::parse(const cache::StoredFile& stored) {
    Known known;
    known.read_at = now();
    const std::optional<cache::RecordText> text = cache_.read_record(stored);
    if (!text) return known;
    known.status = text->status;
    std::string why;
    if (text->is_bundle()) {
        if (auto bundle = bundle_in(*text, why)) known.bundle = std::make_shared<Bundle>(std::move(*bundle));
    } else if (auto record = record_in(*text, why)) {
        known.record = std::make_shared<Record>(std::move(*record));
    }
    if (!why.empty()) cache_.reject_record(*text, why);
    return known;
}

RecordStore::Known RecordStore::known(const cache::StoredFile& stored) {
    const std::lock_guard lock(mutex_);
    Known& known = known_[stored.file];
    if (!known.is_of(stored.status)) known = parse(stored);
    return known;
}

std::vector<RecordStore::Known> RecordStore::known(const std::vector<cache::StoredFile>& files) {
    std::vector<Known> all;
    for (const cache::StoredFile& stored : files) all.push_back(known(stored));
    return all;
}

std::optional<Tuning> RecordStore::find(const RecordName& name, std::string_view slot, const Environment& environment) {
    try {
        return find_anywhere(name, slot, environment);
    } catch (const std::bad_alloc&) {
        return std::nullopt;
    }
}

std::optional<Tuning> RecordStore::find_anywhere(const RecordName& name, std::string_view slot,
                                                 const Environment& environment) {
    const std::vector<Known> sources = known(cache_.record_files(cache::record_folder(name.gpu), name.key()));
    std::optional<Tuning> found = find_in(sources, name, slot, environment);
    if (!found) {
        if (const std::string why = first_mismatch(sources, name, slot, environment); !why.empty()) {
            log_.debug(fmt::format("what is recorded of {} of {} does not hold here: {}", slot, name.problem, why));
        }
    }
    return found;
}

std::optional<Tuning> RecordStore::find_in(const std::vector<Known>& sources, const RecordName& name,
                                           std::string_view slot, const Environment& environment) const {
    std::optional<Tuning> part;
    for (const Known& source : sources) {
        std::optional<Tuning> tuning;
        if (source.record) {
            if (const Tuning* found = source.record->find(slot, environment)) tuning = *found;
        } else if (source.bundle && source.bundle->gpu() == name.gpu) {
            tuning = source.bundle->find(name.problem, name.bucket, slot, environment);
        }
        if (!tuning) continue;
        if (tuning->complete) return tuning;
        if (!part) part = std::move(tuning);
    }
    return part;
}

std::string RecordStore::why_unfit(const RecordName& name, std::string_view slot, const Environment& environment) {
    return first_mismatch(known(cache_.record_files(cache::record_folder(name.gpu), name.key())), name, slot,
                          environment);
}

std::string RecordStore::first_mismatch(const std::vector<Known>& sources, const RecordName& name,
                                        std::string_view slot, const Environment& environment) {
    std::vector<Environment> recorded;
    for (const Known& source : sources) {
        if (source.record) {
            for (const Tuning& tuning : source.record->tunings) {
                if (tuning.slot == slot) recorded.push_back(tuning.environment);
            }
        } else if (source.bundle && source.bundle->gpu() == name.gpu) {
            const std::vector<Environment> more = source.bundle->environments(name.problem, name.bucket, slot);
            recorded.insert(recorded.end(), more.begin(), more.end());
        }
    }
    std::string first;
    for (const Environment& one : recorded) {
        std::string differs = mismatch(one, environment);
        if (differs.empty()) return {};
        if (first.empty()) first = std::move(differs);
    }
    return first;
}

std::optional<NearTuning> RecordStore::find_near(const RecordName& name, const std::vector<std::string>& relatives,
                                                 std::string_view slot, const Environment& environment,
                                                 const SearchSpace& space) {
    std::vector<std::string> problems{name.problem};
    for (const std::string& relative : relatives) {
        if (relative != name.problem) problems.push_back(relative);
    }
    std::vector<std::uint8_t> buckets = neighbours(name.bucket);
    buckets.insert(buckets.begin(), name.bucket);
    // Most neighbours were never measured: one list of the folder is cheaper than a look for each of them.
    const std::string folder = cache::record_folder(name.gpu);
    const std::set<std::string> keys = cache_.record_keys(folder);
    const std::vector<Known> bundles = known(cache_.bundle_files(folder));
    if (keys.empty() && bundles.empty()) return std::nullopt;
    for (const std::uint8_t bucket : buckets) {
        for (const std::string& problem : problems) {
            const RecordName near{name.gpu, problem, bucket};
            if (near == name) continue;
            const bool recorded = !keys.empty() && keys.contains(near.key());
            std::optional<Tuning> tuning =
                recorded ? find(near, slot, environment) : find_in(bundles, near, slot, environment);
            if (!tuning || !tuning->choice) continue;
            if (find_legal(space, *tuning->choice) != nullptr) return NearTuning{std::move(*tuning), near};
            log_.debug(fmt::format("what is recorded for {} of {} is no candidate for {}: {}", slot, problem,
                                   name.problem, to_json(*tuning->choice).dump()));
        }
    }
    return std::nullopt;
}

bool RecordStore::save(const RecordName& name, const Tuning& tuning) {
    const std::string folder = cache::record_folder(name.gpu);
    Record record{name, {}};
    for (const cache::StoredFile& stored : cache_.record_files(folder, name.key())) {
        if (!stored.writable || stored.key.empty()) continue;
        if (const Known own = known(stored); own.record) record = *own.record;
    }
    record.put(tuning);
    return cache_.store_record(folder, name.key(), record_text(record));
}

void RecordStore::with_lock(const RecordName& name, const std::function<void()>& work,
                            std::optional<std::chrono::milliseconds> patience) {
    cache_.with_lock(name.key(), work, patience);
}

}  // namespace smlora::tuning
