#include "cache/inspection.hpp"

#include "cache/layer.hpp"
#include "cache/trust.hpp"
#include "util/printable.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace smlora::cache {
namespace {

// The name of a kernel with all of its constants has some hundred characters.
constexpr std::size_t most_text = 4000;

/// A field of the metadata, or a default where it is missing or of another type: an entry is sound by its hash, and
/// what its writer noted beside the cubin must not keep it from being shown. Text is made so that it can be printed.
std::string text_field(const nlohmann::json& metadata, const char* name) {
    const auto field = metadata.find(name);
    return field != metadata.end() && field->is_string() ? util::printable(field->get<std::string>(), most_text)
                                                         : std::string();
}

std::int64_t integer_field(const nlohmann::json& metadata, const char* name) {
    const auto field = metadata.find(name);
    return field != metadata.end() && field->is_number_integer() ? field->get<std::int64_t>() : 0;
}

double number_field(const nlohmann::json& metadata, const char* name) {
    const auto field = metadata.find(name);
    return field != metadata.end() && field->is_number() ? field->get<double>() : 0;
}

CacheEntryInfo describe(const StoredFile& stored, const KernelEntry& entry) {
    CacheEntryInfo info;
    info.key = stored.key;
    info.file = stored.file;
    info.kernel = text_field(entry.metadata, "kernel");
    info.arch = text_field(entry.metadata, "arch");
    info.compiler = text_field(entry.metadata, "compiler");
    info.registers = integer_field(entry.metadata, "registers");
    info.spill_bytes = integer_field(entry.metadata, "spill_bytes");
    info.shared_bytes = integer_field(entry.metadata, "shared_bytes");
    info.compile_seconds = number_field(entry.metadata, "compile_seconds");
    info.file_bytes = stored.status.size;
    info.metadata = entry.metadata.dump();
    return info;
}

}  // namespace

std::vector<CacheEntryInfo> list_entries(const Layers& layers, const std::string& prefix,
                                         std::vector<CacheProblem>& unreadable) {
    std::vector<std::pair<std::int64_t, CacheEntryInfo>> found;
    for (const Layer& layer : layers) {
        const Contents contents = scan(layer);
        unreadable.insert(unreadable.end(), contents.unreadable.begin(), contents.unreadable.end());
        for (const StoredFile& stored : contents.entries) {
            if (!stored.key.starts_with(prefix)) continue;
            const Reading reading = read_entry(layer, stored.key);
            if (reading.entry) found.emplace_back(reading.status.modified, describe(stored, *reading.entry));
        }
    }
    // Stable, so that a key in several layers stays in the order in which they are consulted where times are equal.
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
        return std::tie(b.first, a.second.key) < std::tie(a.first, b.second.key);
    });
    std::vector<CacheEntryInfo> entries;
    entries.reserve(found.size());
    for (auto& [modified, info] : found) entries.push_back(std::move(info));
    return entries;
}

CacheEntryInfo find_entry(const Layers& layers, const std::string& prefix) {
    if (prefix.empty() || prefix.size() > 32 || prefix.find_first_not_of("0123456789abcdef") != std::string::npos) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("key: expected 1 to 32 lower-case hexadecimal digits, got \"{}\"", prefix));
    }
    std::vector<CacheEntryInfo> found;
    std::vector<CacheProblem> unreadable;
    for (const Layer& layer : layers) {
        for (CacheEntryInfo& info : list_entries({layer}, prefix, unreadable)) {
            const auto same = [&info](const CacheEntryInfo& other) { return other.key == info.key; };
            // The same key further down is hidden by the one above, here as in use.
            if (std::none_of(found.begin(), found.end(), same)) found.push_back(std::move(info));
        }
    }
    if (found.empty()) {
        require_none(unreadable);
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("key: no sound entry of the cache has a key that begins with \"{}\"", prefix));
    }
    if (found.size() > 1) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("key: expected the beginning of one key, but {} entries begin with \"{}\", among them "
                                "{} and {}",
                                found.size(), prefix, found[0].key, found[1].key));
    }
    return std::move(found.front());
}

std::vector<UnsoundFile> find_problems(const Layer& layer, Checked& checked) {
    std::vector<UnsoundFile> problems;
    const auto add = [&](const StoredFile& stored, const std::string& why, bool useless) {
        if (!why.empty()) problems.push_back({stored, why, useless});
    };
    const Contents contents = scan(layer);
    checked.kernels += contents.entries.size();
    checked.records += contents.records.size();
    checked.bundles += contents.bundles.size();
    for (const CacheProblem& problem : contents.unreadable) add({"", "", problem.file, {}}, problem.what, false);
    for (const StoredFile& stored : contents.entries) {
        const Reading reading = read_entry(layer, stored.key);
        // A file of somebody else, or one that others may write to, is of no use either.
        add(stored, reading.why, reading.bad_content || refusal_of_file(stored.status, layer.kernels));
    }
    for (const auto* list : {&contents.records, &contents.bundles}) {
        for (const StoredFile& stored : *list) {
            const RecordReading reading = read_record(layer, stored);
            add(stored, reading.why, reading.refused);
        }
    }
    return problems;
}

void require_none(const std::vector<CacheProblem>& problems) {
    if (problems.empty()) return;
    const std::string more = problems.size() == 1 ? "" : fmt::format(" (and {} more)", problems.size() - 1);
    throw Error(ErrorCode::io,
                fmt::format("cache: {}: {}{}", problems.front().file.string(), problems.front().what, more));
}

}  // namespace smlora::cache
