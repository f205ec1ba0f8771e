#include "cache/use_counts.hpp"

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

void append(util::FileSystem& files, const std::filesystem::path& root, const UseCounts& counts) {
    if (counts.hits == 0 && counts.misses == 0 && counts.evictions == 0) return;
    const util::OpenFile file(files, use_counts_file(root), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    if (file.error() != 0) return;
    // In one write, which no other one gets into.
    const std::string line = fmt::format("{} {} {}\n", counts.hits, counts.misses, counts.evictions);
    static_cast<void>(files.write(file.descriptor(), line.data(), line.size()));
}

UseCounts sum(util::FileSystem& files, const std::filesystem::path& root) {
    UseCounts total;
    std::string text;
    util::FileStatus status;
    const std::filesystem::path file = use_counts_file(root);
    const int error = util::read_file(files, file, largest_file, text, status);
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
