// Archives to import.
#include "harness.hpp"

#include "smlora_tune/archive.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <numeric>

namespace smlora::fuzz {
namespace {

/// A file in memory, as archives are read from files.
std::filesystem::path file_of(std::string_view bytes) {
    static const int file = ::memfd_create("archive", 0);
    require(file >= 0 && ::ftruncate(file, 0) == 0, "there is a file in memory");
    require(::pwrite(file, bytes.data(), bytes.size(), 0) == static_cast<::ssize_t>(bytes.size()),
            "it holds the bytes");
    return fmt::format("/proc/self/fd/{}", file);
}

void read(std::string_view bytes) {
    const std::filesystem::path file = file_of(bytes);
    try {
        for (const tool::ArchiveMember& member : tool::read_archive(file)) {
            const tool::MemberName name = tool::parse_member_path(file, member.path);
            require(name.key.find('/') == std::string::npos && name.folder.find('/') == std::string::npos &&
                        !name.folder.starts_with('.'),
                    "no member leaves its folder", member.path);
        }
    } catch (const Error& error) {
        require(error.code() == ErrorCode::io, "an archive that is none is an error of input");
        require_message(error.what());
    }
}

/// A tar whose headers have the checksums of their content, which no change hits by chance.
std::string with_checksums(std::string_view bytes) {
    constexpr std::size_t block = 512, size_at = 124, size_digits = 11, sum_at = 148, sum_digits = 6;
    std::string tar(bytes);
    for (std::size_t at = 0; at + block <= tar.size();) {
        std::fill_n(tar.begin() + static_cast<std::ptrdiff_t>(at + sum_at), sum_digits + 2, ' ');
        const auto begin = tar.begin() + static_cast<std::ptrdiff_t>(at);
        const unsigned sum = std::accumulate(
            begin, begin + block, 0U, [](unsigned all, char byte) { return all + static_cast<unsigned char>(byte); });
        tar.replace(at + sum_at, sum_digits + 1, fmt::format("{:06o}", sum) + '\0');
        std::uint64_t size = 0;
        std::from_chars(tar.data() + at + size_at, tar.data() + at + size_at + size_digits, size, 8);
        at += block * (1 + (size + block - 1) / block);
    }
    return tar;
}

}  // namespace
}  // namespace smlora::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    smlora::fuzz::read(smlora::fuzz::text_of(bytes, size));
    smlora::fuzz::read(smlora::fuzz::with_checksums(smlora::fuzz::text_of(bytes, size)));
    return 0;
}
