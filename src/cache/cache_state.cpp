#include "cache/cache_state.hpp"

#include "cache/inspection.hpp"
#include "cache/layer.hpp"
#include "cache/trust.hpp"
#include "util/files.hpp"
#include "util/log.hpp"

#include <smlora/error.hpp>

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

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

std::string text_of(const CacheProblem& folder) {
    return fmt::format("cache folder {}: {}", folder.file.string(), folder.what);
}

Writing failure_of(const Folder& folder) {
    return folder.refused() ? Writing{text_of(*folder.refused()), folder.refused()}
                            : Writing{util::describe_error(folder.error())};
}

}  // namespace

Cache::State::State(const CacheOptions& options, util::Logger& log_)
    : files(options.files != nullptr ? *options.files : util::real_file_system()),
      log(log_),
      lock_patience(options.lock_patience) {
    if (const auto named = options.root ? options.root : named_root()) {
        writable = absolute_folder(*named);
        static_cast<void>(check_folder(*writable, FolderUse::writable));
    } else if (const auto usual = default_root()) {
        use_if_fit(absolute_folder(*usual));
    }
    if (writable) layers.push_back({.files = files, .root = *writable});
    const Publishers publishers = trusted_publishers();
    for (const std::filesystem::path& named : options.layers ? *options.layers : default_layers()) {
        const std::filesystem::path folder = absolute_folder(named);
        if (!has(folder)) add_layer(folder, publishers);
    }
    if (options.shipped) add_shipped(options);
    if (options.limit_bytes) {
        limit = *options.limit_bytes;
    } else {
        std::string complaint;
        limit = default_limit(complaint);
        if (!complaint.empty()) log.warning(complaint);
    }
    for (Layer& layer : layers) layer.kept = std::make_shared<KeptFolder>();
    if (writable) {
        keeper.emplace(own(), limit, clock, log, evictions);
        turns.emplace(own(), log);
    }
}

void Cache::State::use_if_fit(const std::filesystem::path& folder) {
    try {
        static_cast<void>(check_folder(folder, FolderUse::writable));
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

void Cache::State::add_layer(const std::filesystem::path& folder, const Publishers& publishers) {
    Writers trusted;
    trusted.owners = publishers.users;
    util::FileStatus status;
    const bool exists = files.status(util::At(folder), status) == 0;
    if (exists && publishers.owners_of_layers) trusted.owners.insert(status.owner);
    if (!check_folder(folder, FolderUse::layer, trusted)) {
        log.info(fmt::format("cache layer {} does not exist; it is used once it is created", folder.string()));
    } else if (refusal_of_folder(folder.native(), status, FolderUse::layer)) {
        log.info(fmt::format("cache layer {}: belongs to user {}, trusted by SMLORA_CACHE_TRUST", folder.string(),
                             status.owner));
    }
    layers.push_back({.files = files, .root = folder, .kernels = trusted, .records = trusted});
}

bool Cache::State::has(const std::filesystem::path& folder) const {
    return std::any_of(layers.begin(), layers.end(), [&](const Layer& layer) { return layer.root == folder; });
}

void Cache::State::add_shipped(const CacheOptions& options) {
    const std::filesystem::path folder = absolute_folder(*options.shipped);
    const Writers trusted = writers_of(files, options.library ? *options.library : own_file());
    try {
        const bool is_new = !has(folder);
        if (!check_folder(folder, FolderUse::layer, trusted)) {
            log.info(fmt::format("cache layer {} (shipped with smlora): does not exist", folder.string()));
        } else if (is_new) {
            layers.push_back({.files = files, .root = folder, .records = trusted});
        }
    } catch (const Error& error) {
        // The user did not choose this folder, and often cannot change it: everything works without it.
        log.warning(fmt::format(
            "not using the tuning records that come with smlora: {}; to run without them and without this warning, "
            "set SMLORA_SHIPPED_CACHE=0",
            error.what()));
    }
}

bool Cache::State::check_folder(const std::filesystem::path& folder, FolderUse use, const Writers& trusted) const {
    util::FileStatus status;
    // A folder that cannot be looked at is like one that is missing: nothing will be found in it.
    if (files.status(util::At(folder), status) != 0) return false;
    if (const auto refusal = refusal_of_folder(folder.native(), status, use, trusted)) {
        throw Error(ErrorCode::io, text_of({folder, *refusal}));
    }
    return true;
}

void Cache::State::warn_of_store(const std::string& what) {
    if (!warned_of_store.exchange(true)) {
        log.warning(what + "; kernels are kept in memory only, and the next process compiles them again");
    }
}

void Cache::State::warn_of(const CacheProblem& folder) const {
    log.warning_once("cache.folder " + folder.file.string(),
                     text_of(folder) + "; until then nothing is read from it or written to it");
}

Writing Cache::State::make_root() {
    if (const int error = util::make_folders(files, *writable); error != 0) return {util::describe_error(error)};
    // Somebody else may have made it since the constructor looked.
    if (const Folder root(own(), *writable); root.error() == 0) {
        tag(root);
    } else {
        return failure_of(root);
    }
    const Folder version(own(), version_folder(*writable), Folder::Missing::is_made);
    return version.error() != 0 ? failure_of(version) : Writing();
}

void Cache::State::tag(const Folder& root) const {
    const std::filesystem::path version = version_folder(*writable).filename();
    std::vector<std::string> names;
    if (files.list(root.itself(), names) != 0 ||
        std::any_of(names.begin(), names.end(), [&version](const auto& name) { return name != version; })) {
        return;
    }
    // In place, as half a tag does no harm, while a temporary file beside it would never be swept.
    const util::OpenFile tag(files, root.at("CACHEDIR.TAG"), O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (tag.error() == 0) static_cast<void>(files.write(tag.descriptor(), cache_tag.data(), cache_tag.size()));
}

Writing Cache::State::write(const std::filesystem::path& target, const std::string& bytes) {
    int error = 0;
    const auto publish = [&](Folder::Missing missing) -> Writing {
        const Folder folder = folder_of(own(), target, missing);
        error = util::publish_file(files, folder.at(target), bytes);
        if (error == 0) return {};
        return folder.error() != 0 ? failure_of(folder) : Writing{util::describe_error(error)};
    };
    Writing written = publish(Folder::Missing::stays);
    if (error != -ENOENT) return written;
    // The first file of its folder, or of the cache, or the cache was removed under us.
    if (Writing root = make_root(); !root.why.empty()) return root;
    return publish(Folder::Missing::is_made);
}

void Cache::State::append(const Layer& layer, std::vector<StoredFile> found, std::vector<StoredFile>& all) const {
    for (StoredFile& stored : found) {
        stored.writable = layer.root == writable;
        stored.layer = &layer;
        all.push_back(std::move(stored));
    }
}

std::optional<RecordText> Cache::State::read(const StoredFile& stored) const {
    RecordReading reading = cache::read_record(*stored.layer, stored);
    if (reading.folder) {
        warn_of(*reading.folder);
    } else if (!reading.record && !reading.why.empty()) {
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

std::uint64_t Cache::State::clear(Walk::Over over, std::initializer_list<std::vector<StoredFile> Contents::*> lists,
                                  std::vector<CacheProblem>* problems) {
    if (!writable) return 0;
    Contents contents = scan(own(), over);
    std::uint64_t removed = 0;
    std::uint64_t bytes = 0;
    for (const auto list : lists) {
        for (const StoredFile& one : contents.*list) {
            const int error = files.remove(folder_of(own(), one.file).at(one.file));
            if (error == 0) {
                ++removed;
                bytes += one.counted_bytes();
            } else if (!util::is_missing(error)) {  // else another process has removed it since the scan
                contents.unreadable.push_back({one.file, "cannot be removed: " + util::describe_error(error)});
            }
        }
    }
    keeper->removed(bytes);
    if (problems == nullptr) {
        require_none(contents.unreadable);
    } else {
        problems->insert(problems->end(), contents.unreadable.begin(), contents.unreadable.end());
    }
    return removed;
}

std::optional<int> Cache::State::remove_if_same(const StoredFile& stored) {
    const std::optional<int> error = cache::remove_if_same(own(), stored.file, stored.status);
    if (error == 0) keeper->removed(stored.counted_bytes());
    return error;
}

}  // namespace smlora::cache
