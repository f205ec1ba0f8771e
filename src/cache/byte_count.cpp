#include "cache/byte_count.hpp"

#include "cache/layer.hpp"
#include "util/files.hpp"
#include "util/lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace smlora::cache {
namespace {

/// It is held for some microseconds. Who does not get it counts all the same: one of the two may be lost then.
constexpr std::chrono::milliseconds patience{5};

/// As many digits as any number has: a shorter number over a longer one would leave digits of it.
constexpr std::size_t digits = 20;

std::uint64_t parse(std::string_view text) {
    std::uint64_t bytes = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bytes);
    const bool whole = error == std::errc() && text.size() == digits && end == text.data() + text.size();
    return whole ? bytes : uncounted;
}

std::uint64_t read_count(util::FileSystem& files, const util::At& file) {
    std::string text;
    util::FileStatus status;
    return util::read_file(files, file, digits, text, status) == 0 ? parse(text) : uncounted;
}

}  // namespace

std::uint64_t read_count(const Layer& layer) {
    const std::filesystem::path file = lock_file(layer.root);
    return read_count(layer.files, folder_of(layer, file).at(file));
}

std::optional<std::uint64_t> change_count(const Layer& layer, FileClock& clock,
                                          const std::function<std::uint64_t(std::uint64_t)>& change) {
    util::FileSystem& files = layer.files;
    const Folder folder(layer, version_folder(layer.root));
    const util::At file = folder.at(lock_file(layer.root));
    const util::ByteLock lock(files, file, count_offset, patience);
    const std::uint64_t count = change(read_count(files, file));
    const std::string text = fmt::format("{:0{}}", count, digits);
    // In place: with a temporary file that takes its place, the locks would stay with the old file.
    const util::OpenFile out(files, file, O_WRONLY);
    if (out.error() != 0) return std::nullopt;
    if (files.write(out.descriptor(), text.data(), text.size()) != static_cast<::ssize_t>(digits)) return std::nullopt;
    util::FileStatus status;
    if (files.status(out.descriptor(), status) == 0) clock.learn(status.modified);
    return count;
}

void count_removed(const Layer& layer, FileClock& clock, std::uint64_t bytes) {
    if (bytes == 0) return;
    static_cast<void>(change_count(layer, clock, [bytes](std::uint64_t count) {
        return count >= uncounted ? count : count - std::min(count, bytes);
    }));
}

}  // namespace smlora::cache
