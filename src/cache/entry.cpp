#include "cache/entry.hpp"

#include "util/counted.hpp"
#include "util/hash.hpp"
#include "util/json.hpp"

#include <fmt/format.h>

#include <limits>
#include <stdexcept>

namespace smlora::cache {
namespace {

constexpr std::string_view magic = "SMLORAK1";
constexpr std::size_t header_bytes = 24;
constexpr std::size_t hash_bytes = 16;

template <class Number>
std::string little_endian(Number value) {
    std::string bytes;
    for (std::size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xff);
    return bytes;
}

template <class Number>
Number from_little_endian(std::string_view bytes) {
    Number value = 0;
    for (std::size_t i = 0; i < sizeof value; ++i) {
        value |= static_cast<Number>(static_cast<Number>(static_cast<unsigned char>(bytes[i])) << (8 * i));
    }
    return value;
}

/// Whether the bytes begin as a cubin does: a 64-bit little-endian ELF file for the machine EM_CUDA (190).
bool is_cubin(std::string_view bytes) {
    constexpr std::size_t elf_header_bytes = 64;
    constexpr std::string_view elf64_little_endian(
        "\x7f"
        "ELF\x02\x01",
        6);
    return bytes.size() >= elf_header_bytes && bytes.starts_with(elf64_little_endian) &&
           from_little_endian<std::uint16_t>(bytes.substr(18)) == 190;
}

}  // namespace

std::string encode(const KernelEntry& entry) {
    // Compiler and paths may hold bytes that are no UTF-8: replaced rather than refused, they are only read by people.
    const std::string metadata = entry.metadata.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (metadata.size() > std::numeric_limits<std::uint32_t>::max()) {
        throw std::length_error(fmt::format("metadata of a kernel entry: {} bytes", metadata.size()));
    }
    std::string bytes;
    bytes.reserve(header_bytes + metadata.size() + entry.cubin.size() + hash_bytes);
    bytes.append(magic)
        .append(little_endian(entry_format))
        .append(little_endian(static_cast<std::uint32_t>(metadata.size())))
        .append(little_endian(static_cast<std::uint64_t>(entry.cubin.size())))
        .append(metadata)
        .append(entry.cubin);
    return bytes.append(util::xxh128_bytes(bytes));
}

std::optional<KernelEntry> decode(std::string_view bytes, std::string& why) {
    const auto unsound = [&why](std::string reason) {
        why = std::move(reason);
        return std::nullopt;
    };
    if (bytes.size() < header_bytes + hash_bytes) return unsound("only " + util::counted(bytes.size(), "byte"));
    if (!bytes.starts_with(magic)) return unsound("not a kernel entry");
    const auto format = from_little_endian<std::uint32_t>(bytes.substr(8));
    if (format != entry_format) return unsound(fmt::format("format {}, expected {}", format, entry_format));

    const std::size_t metadata_bytes = from_little_endian<std::uint32_t>(bytes.substr(12));
    const auto cubin_bytes = from_little_endian<std::uint64_t>(bytes.substr(16));
    // Compared by subtraction from what is there: a sum of the lengths that the file claims could wrap around.
    const std::size_t content_bytes = bytes.size() - header_bytes - hash_bytes;
    if (metadata_bytes > content_bytes || cubin_bytes != content_bytes - metadata_bytes) {
        return unsound(fmt::format("{} bytes do not hold {} of metadata and {} of cubin", bytes.size(), metadata_bytes,
                                   cubin_bytes));
    }
    if (bytes.substr(bytes.size() - hash_bytes) != util::xxh128_bytes(bytes.substr(0, bytes.size() - hash_bytes))) {
        return unsound("the hash does not match the content");
    }

    const std::string_view metadata = bytes.substr(header_bytes, metadata_bytes);
    const std::string_view cubin = bytes.substr(header_bytes + metadata_bytes, content_bytes - metadata_bytes);
    KernelEntry entry{util::parse_json(metadata), std::string(cubin)};
    if (!entry.metadata.is_object()) return unsound("the metadata is not a JSON object");
    if (!is_cubin(entry.cubin)) return unsound("the payload is not a cubin");
    return entry;
}

}  // namespace smlora::cache
