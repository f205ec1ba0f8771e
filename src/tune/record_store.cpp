#include "tune/record_store.hpp"

#include "cache/cache.hpp"
#include "tune/bucket.hpp"
#include "util/log.hpp"

#include <fmt/format.h>

#include <utility>

namespace smlora::tune {
namespace {

/// In what the first tuning of `slot` differs from `environment`; empty when one of them holds.
std::string first_mismatch(const std::vector<Record>& records, std::string_view slot, const Environment& environment) {
    std::string first;
    for (const Record& record : records) {
        for (const Tuning& tuning : record.tunings) {
            if (tuning.slot != slot) continue;
            std::string differs = mismatch(tuning.environment, environment);
            if (differs.empty()) return {};
            if (first.empty()) first = std::move(differs);
        }
    }
    return first;
}

}  // namespace

std::vector<Record> RecordStore::load(const RecordName& name, bool writable_only) {
    std::vector<Record> records;
    for (const cache::RecordText& stored : cache_.load_records(cache::record_folder(name.gpu), name.key())) {
        if (writable_only && !stored.writable) continue;
        std::string why;
        std::optional<Record> record = parse_record(stored.text, why);
        if (record && record->name != name) why = "it is the record of another problem, GPU or number of tokens";
        if (why.empty()) {
            records.push_back(std::move(*record));
        } else {
            cache_.reject_record(stored, why);
        }
    }
    return records;
}

std::optional<Tuning> RecordStore::find(const RecordName& name, std::string_view slot, const Environment& environment) {
    std::optional<Tuning> part;
    const std::vector<Record> records = load(name, false);
    for (const Record& record : records) {
        const Tuning* tuning = record.find(slot, environment);
        if (tuning == nullptr) continue;
        if (tuning->complete) return *tuning;
        if (!part) part = *tuning;
    }
    if (const std::string why = first_mismatch(records, slot, environment); !why.empty()) {
        log_.debug(fmt::format("what is recorded of {} of {} does not hold here: {}", slot, name.problem, why));
    }
    return part;
}

std::string RecordStore::why_unfit(const RecordName& name, std::string_view slot, const Environment& environment) {
    return first_mismatch(load(name, false), slot, environment);
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
    for (const std::uint8_t bucket : buckets) {
        for (const std::string& problem : problems) {
            const RecordName near{name.gpu, problem, bucket};
            if (near == name) continue;
            std::optional<Tuning> tuning = find(near, slot, environment);
            if (!tuning || !tuning->choice) continue;
            if (find_legal(space, *tuning->choice) != nullptr) return NearTuning{std::move(*tuning), near};
            log_.debug(fmt::format("what is recorded for {} of {} is no candidate for {}: {}", slot, problem,
                                   name.problem, to_json(*tuning->choice).dump()));
        }
    }
    return std::nullopt;
}

bool RecordStore::save(const RecordName& name, const Tuning& tuning) {
    Record record{name, {}};
    if (std::vector<Record> stored = load(name, true); !stored.empty()) record = std::move(stored.front());
    record.put(tuning);
    return cache_.store_record(cache::record_folder(name.gpu), name.key(), record_text(record));
}

void RecordStore::with_lock(const RecordName& name, const std::function<void()>& work,
                            std::optional<std::chrono::milliseconds> patience) {
    cache_.with_lock(name.key(), work, patience);
}

}  // namespace smlora::tune
