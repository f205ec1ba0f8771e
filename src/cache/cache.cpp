#include "cache/cache.hpp"

#include "cache/inspection.hpp"
#include "cache/keeper.hpp"
#include "cache/layer.hpp"
#include "cache/location.hpp"
#include "cache/trust.hpp"
#include "cache/turns.hpp"
#include "cache/upkeep.hpp"
#include "util/files.hpp"
#include "util/log.hpp"
#include "util/process.hpp"

#include <smlora/error.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <new>
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

}  // namespace

struct Cache::State {
    State(const CacheOptions& options, util::Logger& log_);

    /// True when the folder exists. Throws for one that is not fit to be a layer.
    bool check_folder(const std::filesystem::path& folder, const Writers& trusted = {}) const;
    /// As the writable layer: a folder that nobody named stops nothing, and without it all is kept in memory.
    void use_if_fit(const std::filesystem::path& folder);
    void add_shipped(const CacheOptions& options);
    /// Who may have written the records of a layer, beside this user and root.
    const Writers& trusted_in(const std::filesystem::path& root) const;
    /// Makes the root and its version folder; says what went wrong, nothing when they are there and fit.
    std::string make_root();
    /// Tags the root as a cache if it holds nothing else: a tag in, say, a home folder that somebody named as the root
    /// would take all of it out of the backups.
    void tag_root();
    /// Writes a file of the writable layer; says what went wrong, nothing when it is there.
    std::string write(const std::filesystem::path& target, const std::string& bytes);
    /// Found in the layer of `root`.
    void append(const std::filesystem::path& root, std::vector<StoredFile> found, std::vector<StoredFile>& all) const;
    std::optional<KernelEntry> load(const std::string& key);
    std::optional<RecordText> read(const StoredFile& stored) const;
    /// Returns how many it removed, and adds what it could not remove to `problems`.
    std::uint64_t remove(const std::vector<StoredFile>& stored, std::vector<CacheProblem>& problems);
    /// A file of the writable layer, see layer.hpp.
    bool remove_if_same(const StoredFile& stored);
    bool refuse_record(const std::string& what);
    std::string unwritable_text(const std::string& why) const;
    void warn_of_store(const std::string& what);
    std::vector<std::filesystem::path> roots() const;

    util::FileSystem& files;
    util::Logger& log;
    std::optional<std::filesystem::path> writable;
    std::string why_not_writable = no_root;
    bool told_of_no_root = false;
    std::vector<std::filesystem::path> read_only;
    std::optional<std::filesystem::path> shipped;
    Writers trusted_in_shipped;
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
    const util::Origin origin;
    FileClock clock;
    std::optional<Keeper> keeper;  ///< of the writable layer
    std::optional<Turns> turns;    ///< likewise
};

Cache::State::State(const CacheOptions& options, util::Logger& log_)
    : files(options.files != nullptr ? *options.files : util::real_file_system()),
      log(log_),
      lock_patience(options.lock_patience) {
    if (const auto named = options.root ? options.root : named_root()) {
        writable = absolute_folder(*named);
        root_is_fit = check_folder(*writable);
    } else if (const auto usual = default_root()) {
        use_if_fit(absolute_folder(*usual));
    }
    for (const std::filesystem::path& named : options.layers ? *options.layers : default_layers()) {
        const std::filesystem::path folder = absolute_folder(named);
        const auto known = roots();
        if (std::find(known.begin(), known.end(), folder) != known.end()) continue;
        if (!check_folder(folder))
            log.info(fmt::format("cache layer {} does not exist; it is used once it is created", folder.string()));
        read_only.push_back(folder);
    }
    if (options.shipped) add_shipped(options);
    if (options.limit_bytes) {
        limit = *options.limit_bytes;
    } else {
        std::string complaint;
        limit = default_limit(complaint);
        if (!complaint.empty()) log.warning(complaint);
    }
    if (writable) {
        keeper.emplace(files, *writable, limit, clock, log, evictions);
        turns.emplace(files, *writable, log);
    }
}

void Cache::State::use_if_fit(const std::filesystem::path& folder) {
    try {
        root_is_fit = check_folder(folder);
        writable = folder;
    } catch (const Error& error) {
        why_not_writable = error.what();
        told_of_no_root = true;
        log.warning(
            fmt::format("{}; until SMLORA_CACHE_DIR names one, kernels and measurements are kept in memory "
                        "only, and the next process makes them again",
                        why_not_writable));
    }
}

void Cache::State::add_shipped(const CacheOptions& options) {
    const std::filesystem::path folder = absolute_folder(*options.shipped);
    const Writers trusted = writers_of(files, options.library ? *options.library : own_file());
    try {
        const auto known = roots();
        const bool is_new = std::find(known.begin(), known.end(), folder) == known.end();
        if (!check_folder(folder, trusted)) {
            log.info(fmt::format("cache layer {} (shipped with smlora): does not exist", folder.string()));
        } else if (is_new) {
            read_only.push_back(folder);
            shipped = folder;
            trusted_in_shipped = trusted;
        }
    } catch (const Error& error) {
        // The user did not choose this folder, and often cannot change it: everything works without it.
        log.warning(fmt::format(
            "not using the tuning records that come with smlora: {}; to run without them and without this warning, "
            "set SMLORA_SHIPPED_CACHE=0",
            error.what()));
    }
}

const Writers& Cache::State::trusted_in(const std::filesystem::path& root) const {
    static const auto& nobody = *new Writers;
    return root == shipped ? trusted_in_shipped : nobody;
}

bool Cache::State::check_folder(const std::filesystem::path& folder, const Writers& trusted) const {
    util::FileStatus status;
    // A folder that cannot be looked at is like one that is missing: nothing will be found in it.
    if (files.status(folder, status) != 0) return false;
    if (const auto refusal = refusal_of_folder(folder, status, trusted)) throw Error(ErrorCode::io, *refusal);
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

Cache::Cache(const CacheOptions& options, util::Logger& log) : state_(std::make_unique<State>(options, log)) {}

Cache::~Cache() {
    State& state = *state_;
    // A child that a process forked off has that process's numbers.
    if (!state.writable || !state.origin.is_this_process()) return;
    state.keeper.reset();  // it may still evict
    append(state.files, *state.writable, {state.hits, state.misses, state.evictions});
}

std::optional<KernelEntry> Cache::load(const std::string& key) {
    if (!is_key(key)) return std::nullopt;
    try {
        return state_->load(key);
    } catch (const std::bad_alloc&) {
        return std::nullopt;
    }
}

std::optional<KernelEntry> Cache::State::load(const std::string& key) {
    for (const std::filesystem::path& root : roots()) {
        Reading reading = read_entry(files, root, key);
        const bool own = root == writable;
        if (reading.entry) {
            if (own) keeper->used(entry_file(root, key), reading.status);
            return std::move(reading.entry);
        }
        if (reading.why.empty()) continue;
        ++rejected;
        const std::filesystem::path file = entry_file(root, key);
        const bool removed = own && reading.bad_content && remove_if_same({key, "", file, reading.status});
        log.warning_once("cache.rejected", fmt::format("cache entry {} is not used{}: {}", file.string(),
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
    why = state.write(file, bytes);
    state.store_fails = !why.empty();
    if (state.store_fails) {
        state.warn_of_store(state.unwritable_text(why));
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
    if (const std::string why = state.write(probe, "probe"); !why.empty()) {
        throw Error(ErrorCode::io, state.unwritable_text(why));
    }
    static_cast<void>(state.files.remove(probe));
}

void Cache::State::append(const std::filesystem::path& root, std::vector<StoredFile> found,
                          std::vector<StoredFile>& all) const {
    for (StoredFile& stored : found) {
        stored.writable = root == writable;
        stored.trusted = trusted_in(root);
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
        return !state.told_of_no_root && state.refuse_record(no_root);
    }
    if (!is_record_folder(folder) || !is_key(key)) {
        return state.refuse_record(fmt::format("cache: \"{}/{}\" cannot be the name of a tuning record", folder, key));
    }
    const std::filesystem::path file = record_file(*state.writable, folder, key);
    const std::string why = state.write(file, text);
    if (!why.empty()) {
        return state.refuse_record(state.unwritable_text(why));
    }
    state.keeper->stored(file, text.size());
    return true;
}

void Cache::reject_record(const RecordText& record, const std::string& why) {
    const bool removed = record.writable && state_->remove_if_same(record);
    state_->log.warning_once("cache.record",
                             fmt::format("{} {} is not used{}: {}", record.is_bundle() ? "bundle" : "tuning record",
                                         record.file.string(), removed ? " and was removed" : "", why));
}

std::vector<RecordText> Cache::list_records(std::vector<CacheProblem>* unreadable) const {
    std::vector<RecordText> texts;
    for (const std::filesystem::path& root : state_->roots()) {
        Contents contents = scan(state_->files, root, Walk::Over::records);
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

std::uint64_t Cache::State::remove(const std::vector<StoredFile>& stored, std::vector<CacheProblem>& problems) {
    std::uint64_t removed = 0;
    std::uint64_t bytes = 0;
    for (const StoredFile& one : stored) {
        const int error = files.remove(one.file);
        if (error == 0) {
            ++removed;
            bytes += one.counted_bytes();
        } else if (error != -ENOENT) {  // which says that another process has removed it since the scan
            problems.push_back({one.file, "cannot be removed: " + util::describe_error(error)});
        }
    }
    keeper->removed(bytes);
    return removed;
}

bool Cache::State::remove_if_same(const StoredFile& stored) {
    if (!cache::remove_if_same(files, stored.file, stored.status)) return false;
    keeper->removed(stored.counted_bytes());
    return true;
}

bool Cache::contains(const std::string& key) const {
    util::FileStatus status;
    const auto roots = is_key(key) ? state_->roots() : std::vector<std::filesystem::path>();
    return std::any_of(roots.begin(), roots.end(), [&](const std::filesystem::path& root) {
        return state_->files.status(entry_file(root, key), status) == 0;
    });
}

std::uint64_t Cache::clear_records() {
    if (!state_->writable) return 0;
    Contents contents = scan(state_->files, *state_->writable, Walk::Over::records);
    std::uint64_t removed = state_->remove(contents.records, contents.unreadable);
    removed += state_->remove(contents.bundles, contents.unreadable);
    require_none(contents.unreadable);
    return removed;
}

void Cache::with_lock(const std::string& key, const std::function<void()>& work,
                      std::optional<std::chrono::milliseconds> patience, const std::function<bool()>& is_there) {
    State& state = *state_;
    const bool usable =
        state.writable && is_key(key) && !state.store_fails && (state.root_is_fit || state.make_root().empty());
    if (!usable) {
        work();
        return;
    }
    const auto take = [&] { return state.turns->take(key, patience.value_or(state.lock_patience), is_there, work); };
    if (take() == -ENOENT && (!state.make_root().empty() || take() == -ENOENT)) work();
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
    for (const StoredFile& record : contents.records) usage.record_bytes += record.status.size;
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
        for (UnsoundFile& one : find_problems(state_->files, root, state_->trusted_in(root))) {
            one.writable = root == state_->writable;
            all.push_back(std::move(one));
        }
    }
    return all;
}

bool Cache::remove(const StoredFile& stored) { return stored.writable && state_->remove_if_same(stored); }

PruneReport Cache::prune(const PruneOptions& options) {
    if (!state_->writable) return {};
    PruneReport report = cache::prune(state_->files, *state_->writable, options, state_->keeper->now());
    if (!options.dry_run) state_->keeper->removed(report.removed_bytes);
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
