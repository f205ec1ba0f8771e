// A kernel entry: one self-contained file.
//
//   offset  bytes  content
//   0       8      magic "SMLORAK1"
//   8       4      format version, little-endian
//   12      4      length of the metadata, little-endian
//   16      8      length of the cubin, little-endian
//   24      ..     metadata: JSON, UTF-8
//   ..      ..     cubin: ELF
//   end-16  16     XXH3-128 (canonical byte order) of everything before it
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace smlora::cache {

inline constexpr std::uint32_t entry_format = 1;

struct KernelEntry {
    nlohmann::json metadata;  ///< key fields, arch, compiler, symbol, kernel (readable), registers, spill_bytes,
                              ///< shared_bytes, dynamic_shared, threads, compile_seconds
    std::string cubin;
};

[[nodiscard]] std::string encode(const KernelEntry& entry);

/// Nothing, with the reason in `why`, unless magic, format, lengths, hash, JSON and ELF header are all right.
[[nodiscard]] std::optional<KernelEntry> decode(std::string_view bytes, std::string& why);

}  // namespace smlora::cache
