#include "cache/use_counts.hpp"

#include "cache/inspection.hpp"
#include "cache/layer.hpp"
#include "util/files.hpp"

#include <smlora/error.hpp>

#include <fcntl.h>
#include <fmt/format.h>

#include <cinttypes>
#include <cstdio>
#include <string>
#include <string_view>

namespace smlora::cache {
namespace {

// A million processes. What is beyond is not read: the counts are of use long before.
constexpr std::uint64_t largest_file = std::uint64_t{64} << 20;

bool parse(const std::string& line, UseCounts& counts) {
    int end = 0;
    const int fields = std::sscanf(line.c_str(), "%" SCNu64 " %" SCNu64 " %" SCNu64 "%n", &counts.hits, &counts.misses,
                                   &counts.evictions, &end);
    return fields == 3 && static_cast<std::size_t>(end) == line.size();
}

}  // namespace

void append(const Layer& layer, const UseCounts& counts) {
    if (counts.hits == 0 && counts.misses == 0 && counts.evictions == 0) return;
    const Folder folder(layer, version_folder(layer.root));
    const util::OpenFile file(layer.files, folder.at(use_counts_file(layer.root)), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file.error() != 0) return;
    // In one write, which no other one gets into.
    const std::string line = fmt::format("{} {} {}\n", counts.hits, counts.misses, counts.evictions);
    static_cast<void>(layer.files.write(file.descriptor(), line.data(), line.size()));
}

UseCounts sum(const Layer& layer) {
    UseCounts total;
    std::string text;
    util::FileStatus status;
    const std::filesystem::path file = use_counts_file(layer.root);
    const Folder folder = folder_of(layer, file);
    if (folder.refused()) require_none({*folder.refused()});
    const int error = util::read_file(layer.files, folder.at(file), largest_file, text, status);
    if (util::is_missing(error)) return total;
    if (error != 0) {
        throw Error(ErrorCode::io, fmt::format("cache: {}: cannot be read: {}; remove it to count anew", file.string(),
                                               util::describe_error(error)));
    }
    std::string_view rest = text;
    for (std::size_t end = 0; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1)) {
        UseCounts one;
        if (!parse(std::string(rest.substr(0, end)), one)) continue;
        total.hits += one.hits;
        total.misses += one.misses;
        total.evictions += one.evictions;
    }
    return total;
}

}  // namespace smlora::cache
