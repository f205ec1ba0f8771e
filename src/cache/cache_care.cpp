// The part of a cache that looks after it rather than uses it.
#include "cache/cache_state.hpp"
#include "cache/inspection.hpp"
#include "cache/layer.hpp"
#include "util/files.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace smlora::cache {

std::vector<CacheLayer> Cache::layers() const {
    std::vector<CacheLayer> layers;
    for (const Layer& layer : state_->layers) {
        const std::filesystem::path& root = layer.root;
        util::FileStatus status;
        const bool exists =
            state_->files.status(util::At(root), status) == 0 && status.kind == util::FileStatus::Kind::folder;
        layers.push_back({root, root == state_->writable, exists});
    }
    return layers;
}

CacheUsage Cache::usage() const {
    CacheUsage usage;
    if (!state_->writable) return usage;
    Contents contents = scan(state_->own());
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
    return list_entries(state_->layers, prefix, unreadable != nullptr ? *unreadable : ignored);
}

CacheEntryInfo Cache::inspect(const std::string& prefix) const { return find_entry(state_->layers, prefix); }

std::vector<UnsoundFile> Cache::verify(Checked* checked) const {
    Checked all_checked;
    std::vector<UnsoundFile> all;
    for (const Layer& layer : state_->layers) {
        for (UnsoundFile& one : find_problems(layer, all_checked)) {
            one.writable = layer.root == state_->writable;
            all.push_back(std::move(one));
        }
    }
    if (checked != nullptr) *checked = all_checked;
    return all;
}

std::optional<int> Cache::remove(const StoredFile& stored) { return state_->remove_if_same(stored); }

PruneReport Cache::prune(const PruneOptions& options) {
    if (!state_->writable) return {};
    PruneReport report = cache::prune(state_->own(), options, state_->keeper->now());
    if (!options.dry_run) state_->keeper->removed(report.removed_bytes);
    return report;
}

const std::vector<Layer>& Cache::folders() const { return state_->layers; }

ShareReport Cache::share(Readers readers) {
    if (!state_->writable) throw Error(ErrorCode::io, state_->why_not_writable);
    return cache::share(state_->own(), readers);
}

double Cache::age(std::int64_t used) const {
    const std::int64_t now = state_->writable ? state_->keeper->now() : state_->clock.now();
    return std::max(0.0, static_cast<double>(now - used) * 1e-9);
}

UseCounts Cache::use_counts() const { return state_->writable ? sum(state_->own()) : UseCounts(); }

void Cache::zero_use_counts() {
    if (!state_->writable) return;
    const std::filesystem::path file = use_counts_file(*state_->writable);
    const Folder folder = folder_of(state_->own(), file);
    if (folder.refused()) require_none({*folder.refused()});
    const int error = state_->files.remove(folder.at(file));
    if (error != 0 && !util::is_missing(error)) {
        throw Error(ErrorCode::io,
                    fmt::format("cache: {}: cannot be removed: {}", file.string(), util::describe_error(error)));
    }
}

std::uint64_t Cache::clear(std::vector<CacheProblem>* problems) {
    return state_->clear(Walk::Over::kernels, {&Contents::entries}, problems);
}

std::uint64_t Cache::clear_records(std::vector<CacheProblem>* problems) {
    return state_->clear(Walk::Over::records, {&Contents::records, &Contents::bundles}, problems);
}

}  // namespace smlora::cache
