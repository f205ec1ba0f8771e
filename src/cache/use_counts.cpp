#include "cache/use_counts.hpp"

#include "cache/inspection.hpp"
#include "cache/layer.hpp"
#include "util/files.hpp"

#include <smlora/error.hpp>

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <optional>

namespace smlora::cache {
namespace {

// A million processes. What is beyond is not read: the counts are of use long before.
constexpr std::uint64_t largest_file = std::uint64_t{64} << 20;

// No process finds more, and the sum of a file of such lines is far from the largest number.
constexpr std::uint64_t largest_count = std::uint64_t{1} << 32;

std::optional<UseCounts> parse_line(std::string_view line) {
    UseCounts counts;
    const char* position = line.data();
    const char* const end = line.data() + line.size();
    for (std::uint64_t* count : {&counts.hits, &counts.misses, &counts.evictions}) {
        if (count != &counts.hits && (position == end || *position++ != ' ')) return std::nullopt;
        const auto [stop, error] = std::from_chars(position, end, *count);
        if (error != std::errc() || *count > largest_count) return std::nullopt;
        position = stop;
    }
    return position == end ? std::optional(counts) : std::nullopt;
}

}  // namespace

std::string encode_use_counts(const UseCounts& counts) {
    return fmt::format("{} {} {}\n", counts.hits, counts.misses, counts.evictions);
}

UseCounts decode_use_counts(std::string_view text) {
    UseCounts total;
    for (std::size_t end = 0; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
        const std::optional<UseCounts> one = parse_line(text.substr(0, end));
        if (!one) continue;
        total.hits += one->hits;
        total.misses += one->misses;
        total.evictions += one->evictions;
    }
    return total;
}

void append(const Layer& layer, const UseCounts& counts) {
    if (counts.hits == 0 && counts.misses == 0 && counts.evictions == 0) return;
    const Folder folder(layer, version_folder(layer.root));
    const util::OpenFile file(layer.files, folder.at(use_counts_file(layer.root)), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file.error() != 0) return;
    // In one write, which no other one gets into.
    const std::string line = encode_use_counts(counts);
    static_cast<void>(layer.files.write(file.descriptor(), line.data(), line.size()));
}

UseCounts sum(const Layer& layer) {
    std::string text;
    util::FileStatus status;
    const std::filesystem::path file = use_counts_file(layer.root);
    const Folder folder = folder_of(layer, file);
    if (folder.refused()) require_none({*folder.refused()});
    const auto may_read = [&](const util::FileStatus& found) { return !refusal_of_file(found, layer.kernels); };
    const int error = util::read_file(layer.files, folder.at(file), largest_file, text, status, may_read);
    if (util::is_missing(error)) return {};
    if (error != 0) {
        const auto refusal = error == -EPERM ? refusal_of_file(status, layer.kernels) : std::nullopt;
        throw Error(ErrorCode::io, fmt::format("cache: {}: {}; remove it to count anew", file.string(),
                                               refusal ? *refusal : "cannot be read: " + util::describe_error(error)));
    }
    return decode_use_counts(text);
}

}  // namespace smlora::cache
