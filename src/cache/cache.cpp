#include "cache/cache.hpp"

#include "cache/cache_state.hpp"
#include "cache/layer.hpp"
#include "util/files.hpp"
#include "util/log.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>

namespace smlora::cache {

Cache::Cache(const CacheOptions& options, util::Logger& log) : state_(std::make_unique<State>(options, log)) {}

Cache::~Cache() {
    // A child that a process forked off has that process's numbers.
    if (!state_->origin.is_this_process()) return;
    state_->keeper.reset();  // it may still evict
    write_use_counts();
}

std::optional<KernelEntry> Cache::load(const std::string& key) {
    if (!is_key(key)) return std::nullopt;
    State& state = *state_;
    for (const Layer& layer : state.layers) {
        Reading reading = read_entry(layer, key);
        const std::filesystem::path file = entry_file(layer.root, key);
        const bool writable = layer.root == state.writable;
        if (reading.entry) {
            if (writable) state.keeper->used(file, reading.status);
            return std::move(reading.entry);
        }
        if (reading.folder) state.warn_of(*reading.folder);
        if (reading.folder || reading.why.empty()) continue;
        ++state.rejected;
        const bool removed =
            writable && reading.bad_content && state.remove_if_same({key, "", file, reading.status}) == 0;
        state.log.warning_once("cache.rejected", fmt::format("cache entry {} is not used{}: {}", file.string(),
                                                             removed ? " and was removed" : "", reading.why));
    }
    return std::nullopt;
}

bool Cache::store(const std::string& key, const KernelEntry& entry) {
    State& state = *state_;
    if (!state.writable) {
        if (!state.told_of_no_root) state.warn_of_store(no_root);
        return false;
    }
    std::string why;
    if (!is_key(key)) why = "the key is not 32 hexadecimal digits";
    if (!entry.metadata.is_object()) why = "the metadata is not a JSON object";
    const std::string bytes = why.empty() ? encode_for(key, entry) : std::string();
    // What would not be taken on reading is not published in the first place: an empty or foreign cubin above all.
    if (!why.empty() || !decode(bytes, why)) {
        state.warn_of_store(fmt::format("cache: entry \"{}\" is unsound and was not stored: {}", key, why));
        return false;
    }
    if (state.limit != 0 && bytes.size() > state.limit) {
        state.warn_of_store(fmt::format("cache {}: an entry of {} bytes exceeds the limit of {}",
                                        state.writable->string(), bytes.size(), state.limit));
        return false;
    }
    const std::filesystem::path file = entry_file(*state.writable, key);
    state.keeper->wait_for_room();
    const Writing written = state.write(file, bytes);
    state.store_fails = !written.why.empty();
    if (state.store_fails) {
        if (written.folder) {
            state.warn_of(*written.folder);
        } else {
            state.warn_of_store(state.unwritable_text(written.why));
        }
        return false;
    }
    state.keeper->stored(file, bytes.size());
    return true;
}

void Cache::require_writable() {
    State& state = *state_;
    if (!state.writable) throw Error(ErrorCode::io, state.why_not_writable);
    // Permissions do not tell of a file system that is read-only or full.
    const std::filesystem::path probe =
        version_folder(*state.writable) / fmt::format("{}probe", util::temporary_prefix);
    if (const Writing written = state.write(probe, "probe"); !written.why.empty()) {
        throw Error(ErrorCode::io, state.unwritable_text(written.why));
    }
    static_cast<void>(state.files.remove(folder_of(state.own(), probe).at(probe)));
}

std::vector<StoredFile> Cache::record_files(const std::string& folder, const std::string& key) const {
    std::vector<StoredFile> found;
    if (!is_record_folder(folder) || !is_key(key)) return found;
    for (const Layer& layer : state_->layers) {
        state_->append(layer, cache::record_files(layer, folder, key), found);
    }
    return found;
}

std::vector<StoredFile> Cache::bundle_files(const std::string& folder) const {
    std::vector<StoredFile> found;
    if (!is_record_folder(folder)) return found;
    for (const Layer& layer : state_->layers) {
        state_->append(layer, cache::bundle_files(layer, folder), found);
    }
    return found;
}

std::set<std::string> Cache::record_keys(const std::string& folder) const {
    std::set<std::string> keys;
    if (!is_record_folder(folder)) return keys;
    for (const Layer& layer : state_->layers) {
        for (std::string& key : cache::record_keys(layer, folder)) keys.insert(std::move(key));
    }
    return keys;
}

std::optional<RecordText> Cache::read_record(const StoredFile& stored) const { return state_->read(stored); }

bool Cache::store_record(const std::string& folder, const std::string& key, const std::string& text) {
    State& state = *state_;
    if (!state.writable) {
        return !state.told_of_no_root && state.refuse_record(no_root);
    }
    if (!is_record_folder(folder) || !is_key(key)) {
        return state.refuse_record(fmt::format("cache: \"{}/{}\" cannot be the name of a tuning record", folder, key));
    }
    const std::filesystem::path file = record_file(*state.writable, folder, key);
    const Writing written = state.write(file, text);
    if (written.folder) {
        state.warn_of(*written.folder);
        return false;
    }
    if (!written.why.empty()) return state.refuse_record(state.unwritable_text(written.why));
    state.keeper->stored(file, text.size());
    return true;
}

void Cache::reject_record(const RecordText& record, const std::string& why) {
    const bool removed = record.writable && state_->remove_if_same(record) == 0;
    state_->log.warning_once("cache.record",
                             fmt::format("{} {} is not used{}: {}", record.is_bundle() ? "bundle" : "tuning record",
                                         record.file.string(), removed ? " and was removed" : "", why));
}

std::vector<RecordText> Cache::list_records(std::vector<CacheProblem>* unreadable) const {
    std::vector<RecordText> texts;
    for (const Layer& layer : state_->layers) {
        Contents contents = scan(layer, Walk::Over::records);
        if (unreadable != nullptr) {
            unreadable->insert(unreadable->end(), contents.unreadable.begin(), contents.unreadable.end());
        }
        for (auto* list : {&contents.records, &contents.bundles}) {
            std::sort(list->begin(), list->end(), [](const auto& a, const auto& b) {
                return std::tie(a.folder, a.key) < std::tie(b.folder, b.key);
            });
            std::vector<StoredFile> found;
            state_->append(layer, std::move(*list), found);
            for (const StoredFile& stored : found) {
                if (auto record = state_->read(stored)) texts.push_back(std::move(*record));
            }
        }
    }
    return texts;
}

void Cache::finish_eviction() {
    if (state_->keeper) state_->keeper->finish();
}

bool Cache::contains(const std::string& key) const {
    util::FileStatus status;
    return is_key(key) && std::any_of(state_->layers.begin(), state_->layers.end(), [&](const Layer& layer) {
               return look_at(layer, entry_file(layer.root, key), status) == 0;
           });
}

void Cache::count_use(std::uint64_t hits, std::uint64_t misses) {
    state_->hits += hits;
    state_->misses += misses;
}

void Cache::write_use_counts() {
    State& state = *state_;
    if (!state.writable) return;
    append(state.own(), {state.hits.exchange(0), state.misses.exchange(0), state.evictions.exchange(0)});
}

void Cache::with_lock(const std::string& key, const std::function<void()>& work,
                      std::optional<std::chrono::milliseconds> patience, const std::function<bool()>& is_there) {
    State& state = *state_;
    if (!state.writable || !is_key(key) || state.store_fails) {
        work();
        return;
    }
    const auto take = [&] { return state.turns->take(key, patience.value_or(state.lock_patience), is_there, work); };
    if (take() == -ENOENT && (!state.make_root().why.empty() || take() == -ENOENT)) work();
}

std::uint64_t Cache::limit_bytes() const noexcept { return state_->limit; }

std::uint64_t Cache::rejected() const noexcept { return state_->rejected; }

util::FileSystem& Cache::files() const noexcept { return state_->files; }

}  // namespace smlora::cache
