#include "cache/cache.hpp"

#include "cache/inspection.hpp"
#include "cache/layer.hpp"
#include "cache/location.hpp"
#include "cache/trust.hpp"
#include "cache/upkeep.hpp"
#include "util/files.hpp"
#include "util/lock.hpp"
#include "util/log.hpp"

#include <smlora/error.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <tuple>

namespace smlora::cache {
namespace {

std::filesystem::path absolute_folder(const std::filesystem::path& named) {
    if (named.empty()) throw Error(ErrorCode::io, "cache folder: expected a path, got an empty one");
    std::error_code error;
    const std::filesystem::path absolute = std::filesystem::absolute(named, error);
    std::filesystem::path normal = (error ? named : absolute).lexically_normal();
    // "a/b/" and "a/b" are one folder.
    return normal.has_filename() || !normal.has_relative_path() ? normal : normal.parent_path();
}

// Part of the format of Bernstein's Cache Directory Tagging Specification.
constexpr std::string_view cache_tag =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# The kernel cache of smlora: everything here can be made again.\n";

constexpr const char* no_root = "cache: none of SMLORA_CACHE_DIR, XDG_CACHE_HOME and HOME names a folder";

/// A byte of the lock file for each key: 60 bits of it, as offsets are positive 64-bit numbers. Two keys that share one
/// would only wait for each other.
std::int64_t lock_offset(const std::string& key) { return std::stoll(key.substr(0, 15), nullptr, 16); }

}  // namespace

struct Cache::State {
    State(const CacheOptions& options, util::Logger& log_);

    /// True when the folder exists. Throws for one that is not fit to be a layer.
    bool check_folder(const std::filesystem::path& folder) const;
    /// Makes the root and its version folder; says what went wrong, nothing when they are there and fit.
    std::string make_root();
    /// Tags the root as a cache if it holds nothing else: a tag in, say, a home folder that somebody named as the root
    /// would take all of it out of the backups.
    void tag_root();
    /// Writes a file of the writable layer; says what went wrong, nothing when it is there.
    std::string write(const std::filesystem::path& target, const std::string& bytes);
    /// Found in the layer of `root`.
    void append(const std::filesystem::path& root, std::vector<StoredFile> found, std::vector<StoredFile>& all) const;
    std::optional<RecordText> read(const StoredFile& stored) const;
    /// Returns how many it removed, and adds what it could not remove to `problems`.
    std::uint64_t remove(const std::vector<StoredFile>& stored, std::vector<CacheProblem>& problems) const;
    bool refuse_record(const std::string& what);
    std::string unwritable_text(const std::string& why) const;
    void keep_up(std::uint64_t stored_bytes);
    void warn_of_store(const std::string& what);
    std::vector<std::filesystem::path> roots() const;

    util::FileSystem& files;
    util::Logger& log;
    std::optional<std::filesystem::path> writable;
    std::vector<std::filesystem::path> read_only;
    std::uint64_t limit = default_limit_bytes;
    std::chrono::milliseconds lock_patience;
    std::atomic<std::uint64_t> rejected{0};
    std::atomic<bool> warned_of_store{false};
    /// The last store failed: no process would find what another compiles under a lock, so none waits for it.
    std::atomic<bool> store_fails{false};
    /// The root was there and fit when it was last looked at.
    std::atomic<bool> root_is_fit{false};
    std::atomic<std::uint64_t> hits{0};
    std::atomic<std::uint64_t> misses{0};
    std::atomic<std::uint64_t> evictions{0};
    const ::pid_t process = ::getpid();
    std::mutex upkeep_mutex;
    std::uint64_t bytes_since_upkeep = 0;  // guarded by upkeep_mutex
};

Cache::State::State(const CacheOptions& options, util::Logger& log_)
    : files(options.files != nullptr ? *options.files : util::real_file_system()),
      log(log_),
      lock_patience(options.lock_patience) {
    const auto root = options.root ? options.root : default_root();
    if (root) {
        writable = absolute_folder(*root);
        root_is_fit = check_folder(*writable);
    }
    for (const std::filesystem::path& named : options.layers ? *options.layers : default_layers()) {
        const std::filesystem::path folder = absolute_folder(named);
        const auto known = roots();
        if (std::find(known.begin(), known.end(), folder) != known.end()) continue;
        if (!check_folder(folder))
            log.info(fmt::format("cache layer {} does not exist; it is used once it is created", folder.string()));
        read_only.push_back(folder);
    }
    if (options.shipped) {
        const std::filesystem::path folder = absolute_folder(*options.shipped);
        try {
            const auto known = roots();
            const bool is_new = std::find(known.begin(), known.end(), folder) == known.end();
            if (!check_folder(folder)) {
                log.info(fmt::format("cache layer {} (shipped with smlora): does not exist", folder.string()));
            } else if (is_new) {
                read_only.push_back(folder);
            }
        } catch (const Error& error) {
            // The user did not choose this folder, and often cannot change it: everything works without it.
            log.warning(fmt::format(
                "not using the tuning records that come with smlora: {}; to run without them and without this warning, "
                "set SMLORA_SHIPPED_CACHE=0",
                error.what()));
        }
    }
    if (options.limit_bytes) {
        limit = *options.limit_bytes;
    } else {
        std::string complaint;
        limit = default_limit(complaint);
        if (!complaint.empty()) log.warning(complaint);
    }
}

bool Cache::State::check_folder(const std::filesystem::path& folder) const {
    util::FileStatus status;
    // A folder that cannot be looked at is like one that is missing: nothing will be found in it.
    if (files.status(folder, status) != 0) return false;
    if (const auto refusal = refusal_of_folder(folder, status)) throw Error(ErrorCode::io, *refusal);
    return true;
}

std::vector<std::filesystem::path> Cache::State::roots() const {
    std::vector<std::filesystem::path> all;
    if (writable) all.push_back(*writable);
    all.insert(all.end(), read_only.begin(), read_only.end());
    return all;
}

void Cache::State::warn_of_store(const std::string& what) {
    if (!warned_of_store.exchange(true)) {
        log.warning(what + "; kernels are kept in memory only, and the next process compiles them again");
    }
}

std::string Cache::State::make_root() {
    util::FileStatus status;
    int error = util::make_folders(files, *writable);
    if (error == 0) error = files.status(*writable, status);
    if (error != 0) return util::describe_error(error);
    // Somebody else may have made it since the constructor looked.
    if (const auto refusal = refusal_of_folder(*writable, status)) return *refusal;
    root_is_fit = true;
    tag_root();
    error = util::make_folders(files, version_folder(*writable));
    return error != 0 ? util::describe_error(error) : std::string();
}

void Cache::State::tag_root() {
    const std::filesystem::path version = version_folder(*writable).filename();
    std::vector<std::string> names;
    if (files.list(*writable, names) != 0 ||
        std::any_of(names.begin(), names.end(), [&version](const auto& name) { return name != version; })) {
        return;
    }
    // In place, as half a tag does no harm, while a temporary file beside it would never be swept.
    const util::OpenFile tag(files, *writable / "CACHEDIR.TAG", O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (tag.error() == 0) static_cast<void>(files.write(tag.descriptor(), cache_tag.data(), cache_tag.size()));
}

std::string Cache::State::write(const std::filesystem::path& target, const std::string& bytes) {
    int error = root_is_fit ? util::publish_file(files, target, bytes) : -ENOENT;
    if (error == -ENOENT) {
        // The first file of its folder, or of the cache, or the cache was removed under us.
        if (std::string why = make_root(); !why.empty()) return why;
        error = util::make_folders(files, target.parent_path());
        if (error == 0) error = util::publish_file(files, target, bytes);
    }
    return error != 0 ? util::describe_error(error) : std::string();
}

/// Going through the whole layer is for once in an hour, in whichever process, and for when this process alone has
/// added a sixteenth of the limit since: n processes overshoot the limit by n sixteenths at most within that hour.
void Cache::State::keep_up(std::uint64_t stored_bytes) {
    const std::lock_guard lock(upkeep_mutex);
    bytes_since_upkeep += stored_bytes;
    if (bytes_since_upkeep <= limit / 16 && !upkeep_is_due(files, *writable)) return;
    bytes_since_upkeep = 0;
    const UpkeepReport report = upkeep(files, *writable, limit);
    evictions += report.evicted;
    log.debug(fmt::format("cache {}: {} bytes; evicted {} entries, removed {} temporary files", writable->string(),
                          report.bytes, report.evicted, report.swept));
}

Cache::Cache(const CacheOptions& options, util::Logger& log) : state_(std::make_unique<State>(options, log)) {}

Cache::~Cache() {
    const State& state = *state_;
    // A child that a process forked off has that process's numbers.
    if (!state.writable || state.process != ::getpid()) return;
    append(state.files, *state.writable, {state.hits, state.misses, state.evictions});
}

std::optional<KernelEntry> Cache::load(const std::string& key) {
    if (!is_key(key)) return std::nullopt;
    State& state = *state_;
    for (const std::filesystem::path& root : state.roots()) {
        Reading reading = read_entry(state.files, root, key);
        const bool writable = root == state.writable;
        if (reading.entry) {
            if (writable) mark_used(state.files, entry_file(root, key), reading.status);
            return std::move(reading.entry);
        }
        if (reading.why.empty()) continue;
        ++state.rejected;
        const std::filesystem::path file = entry_file(root, key);
        const bool removed = writable && reading.bad_content && remove_if_same(state.files, file, reading.status);
        state.log.warning_once("cache.rejected", fmt::format("cache entry {} is not used{}: {}", file.string(),
                                                             removed ? " and was removed" : "", reading.why));
    }
    return std::nullopt;
}

bool Cache::store(const std::string& key, const KernelEntry& entry) {
    State& state = *state_;
    if (!state.writable) {
        state.warn_of_store(no_root);
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
    if (bytes.size() > state.limit) {
        state.warn_of_store(fmt::format("cache {}: an entry of {} bytes exceeds the limit of {}",
                                        state.writable->string(), bytes.size(), state.limit));
        return false;
    }
    why = state.write(entry_file(*state.writable, key), bytes);
    state.store_fails = !why.empty();
    if (state.store_fails) {
        state.warn_of_store(state.unwritable_text(why));
        return false;
    }
    state.keep_up(bytes.size());
    return true;
}

void Cache::require_writable() {
    State& state = *state_;
    if (!state.writable) throw Error(ErrorCode::io, no_root);
    // Permissions do not tell of a file system that is read-only or full.
    const std::filesystem::path probe =
        version_folder(*state.writable) / fmt::format("{}probe", util::temporary_prefix);
    if (const std::string why = state.write(probe, "probe"); !why.empty()) {
        throw Error(ErrorCode::io, state.unwritable_text(why));
    }
    static_cast<void>(state.files.remove(probe));
}

void Cache::State::append(const std::filesystem::path& root, std::vector<StoredFile> found,
                          std::vector<StoredFile>& all) const {
    for (StoredFile& stored : found) {
        stored.writable = root == writable;
        all.push_back(std::move(stored));
    }
}

std::optional<RecordText> Cache::State::read(const StoredFile& stored) const {
    RecordReading reading = cache::read_record(files, stored);
    if (!reading.record && !reading.why.empty()) {
        log.warning_once("cache.record",
                         fmt::format("{} {} is not used: {}", stored.key.empty() ? "bundle" : "tuning record",
                                     stored.file.string(), reading.why));
    }
    return std::move(reading.record);
}

bool Cache::State::refuse_record(const std::string& what) {
    log.warning_once("cache.store_record", what + "; its measurements are lost when this process ends");
    return false;
}

std::string Cache::State::unwritable_text(const std::string& why) const {
    return fmt::format("cache {}: cannot be written: {}", writable->string(), why);
}

std::vector<StoredFile> Cache::record_files(const std::string& folder, const std::string& key) const {
    std::vector<StoredFile> found;
    if (!is_record_folder(folder) || !is_key(key)) return found;
    for (const std::filesystem::path& root : state_->roots()) {
        state_->append(root, cache::record_files(state_->files, root, folder, key), found);
    }
    return found;
}

std::vector<StoredFile> Cache::bundle_files(const std::string& folder) const {
    std::vector<StoredFile> found;
    if (!is_record_folder(folder)) return found;
    for (const std::filesystem::path& root : state_->roots()) {
        state_->append(root, cache::bundle_files(state_->files, root, folder), found);
    }
    return found;
}

std::set<std::string> Cache::record_keys(const std::string& folder) const {
    std::set<std::string> keys;
    if (!is_record_folder(folder)) return keys;
    for (const std::filesystem::path& root : state_->roots()) {
        for (std::string& key : cache::record_keys(state_->files, root, folder)) keys.insert(std::move(key));
    }
    return keys;
}

std::optional<RecordText> Cache::read_record(const StoredFile& stored) const { return state_->read(stored); }

bool Cache::store_record(const std::string& folder, const std::string& key, const std::string& text) {
    State& state = *state_;
    if (!state.writable) {
        return state.refuse_record(no_root);
    }
    if (!is_record_folder(folder) || !is_key(key)) {
        return state.refuse_record(fmt::format("cache: \"{}/{}\" cannot be the name of a tuning record", folder, key));
    }
    const std::string why = state.write(record_file(*state.writable, folder, key), text);
    if (!why.empty()) {
        return state.refuse_record(state.unwritable_text(why));
    }
    return true;
}

void Cache::reject_record(const RecordText& record, const std::string& why) {
    const bool removed = record.writable && remove_if_same(state_->files, record.file, record.status);
    state_->log.warning_once("cache.record",
                             fmt::format("{} {} is not used{}: {}", record.is_bundle() ? "bundle" : "tuning record",
                                         record.file.string(), removed ? " and was removed" : "", why));
}

std::vector<RecordText> Cache::list_records(std::vector<CacheProblem>* unreadable) const {
    std::vector<RecordText> texts;
    for (const std::filesystem::path& root : state_->roots()) {
        Contents contents = scan_records(state_->files, root);
        if (unreadable != nullptr) {
            unreadable->insert(unreadable->end(), contents.unreadable.begin(), contents.unreadable.end());
        }
        for (auto* list : {&contents.records, &contents.bundles}) {
            std::sort(list->begin(), list->end(), [](const auto& a, const auto& b) {
                return std::tie(a.folder, a.key) < std::tie(b.folder, b.key);
            });
            std::vector<StoredFile> found;
            state_->append(root, std::move(*list), found);
            for (const StoredFile& stored : found) {
                if (auto record = state_->read(stored)) texts.push_back(std::move(*record));
            }
        }
    }
    return texts;
}

std::uint64_t Cache::State::remove(const std::vector<StoredFile>& stored, std::vector<CacheProblem>& problems) const {
    std::uint64_t removed = 0;
    for (const StoredFile& one : stored) {
        const int error = files.remove(one.file);
        if (error == 0) ++removed;
        // Another process may have removed it since the scan.
        if (error != 0 && error != -ENOENT) {
            problems.push_back({one.file, "cannot be removed: " + util::describe_error(error)});
        }
    }
    return removed;
}

std::uint64_t Cache::clear_records() {
    if (!state_->writable) return 0;
    Contents contents = scan_records(state_->files, *state_->writable);
    std::uint64_t removed = state_->remove(contents.records, contents.unreadable);
    removed += state_->remove(contents.bundles, contents.unreadable);
    require_none(contents.unreadable);
    return removed;
}

void Cache::with_lock(const std::string& key, const std::function<void()>& work,
                      std::optional<std::chrono::milliseconds> patience) {
    State& state = *state_;
    const bool usable =
        state.writable && is_key(key) && !state.store_fails && (state.root_is_fit || state.make_root().empty());
    if (!usable) {
        work();
        return;
    }
    const std::filesystem::path file = lock_file(*state.writable);
    std::optional<util::ByteLock> lock;
    lock.emplace(state.files, file, lock_offset(key), patience.value_or(state.lock_patience));
    if (lock->error() == -ENOENT && state.make_root().empty()) {
        lock.emplace(state.files, file, lock_offset(key), patience.value_or(state.lock_patience));
    }
    if (!lock->held()) {
        state.log.info(fmt::format("could not lock {} ({}); another process may do the same work", file.string(),
                                   util::describe_error(lock->error())));
    }
    work();
}

std::uint64_t Cache::limit_bytes() const noexcept { return state_->limit; }

std::uint64_t Cache::rejected() const noexcept { return state_->rejected; }

util::FileSystem& Cache::files() const noexcept { return state_->files; }

std::vector<CacheLayer> Cache::layers() const {
    std::vector<CacheLayer> layers;
    for (const std::filesystem::path& root : state_->roots()) {
        util::FileStatus status;
        const bool exists = state_->files.status(root, status) == 0 && status.kind == util::FileStatus::Kind::folder;
        layers.push_back({root, root == state_->writable, exists});
    }
    return layers;
}

CacheUsage Cache::usage() const {
    CacheUsage usage;
    if (!state_->writable) return usage;
    Contents contents = scan(state_->files, *state_->writable);
    usage.entries = contents.entries.size();
    usage.records = contents.records.size();
    usage.bundles = contents.bundles.size();
    for (const StoredFile& entry : contents.entries) {
        usage.bytes += entry.status.size;
        const std::int64_t used = entry.status.modified;
        usage.oldest = usage.oldest == 0 ? used : std::min(usage.oldest, used);
        usage.newest = std::max(usage.newest, used);
    }
    for (const auto* list : {&contents.records, &contents.bundles}) {
        for (const StoredFile& record : *list) usage.record_bytes += record.status.size;
    }
    usage.unreadable = std::move(contents.unreadable);
    return usage;
}

std::vector<CacheEntryInfo> Cache::list(const std::string& prefix, std::vector<CacheProblem>* unreadable) const {
    std::vector<CacheProblem> ignored;
    return list_entries(state_->files, state_->roots(), prefix, unreadable != nullptr ? *unreadable : ignored);
}

CacheEntryInfo Cache::inspect(const std::string& prefix) const {
    return find_entry(state_->files, state_->roots(), prefix);
}

std::vector<UnsoundFile> Cache::verify() const {
    std::vector<UnsoundFile> all;
    for (const std::filesystem::path& root : state_->roots()) {
        for (UnsoundFile& one : find_problems(state_->files, root)) {
            one.writable = root == state_->writable;
            all.push_back(std::move(one));
        }
    }
    return all;
}

bool Cache::remove(const StoredFile& stored) {
    return stored.writable && remove_if_same(state_->files, stored.file, stored.status);
}

PruneReport Cache::prune(const PruneOptions& options) {
    if (!state_->writable) return {};
    PruneReport report = cache::prune(state_->files, *state_->writable, options);
    require_none(report.problems);
    return report;
}

UseCounts Cache::use_counts() const { return state_->writable ? sum(state_->files, *state_->writable) : UseCounts(); }

void Cache::count_use(std::uint64_t hits, std::uint64_t misses) {
    state_->hits += hits;
    state_->misses += misses;
}

void Cache::zero_use_counts() {
    if (!state_->writable) return;
    const std::filesystem::path file = use_counts_file(*state_->writable);
    const int error = state_->files.remove(file);
    if (error != 0 && error != -ENOENT && error != -ENOTDIR) {
        throw Error(ErrorCode::io,
                    fmt::format("cache: {}: cannot be removed: {}", file.string(), util::describe_error(error)));
    }
}

std::uint64_t Cache::clear() {
    if (!state_->writable) return 0;
    Contents contents = scan(state_->files, *state_->writable);
    const std::uint64_t removed = state_->remove(contents.entries, contents.unreadable);
    require_none(contents.unreadable);
    return removed;
}

}  // namespace smlora::cache
