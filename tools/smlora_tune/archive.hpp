// Kernels and tuning records as one file: a gzipped tar of
//
//   manifest.json             {"format": 1, "files": [{"path", "bytes", "xxh128"}]}, the first member
//   kernels/ab/ab01..ef       kernel entries, as they lie in a cache
//   tuning/GPU.jsonl          bundles of complete tunings, likewise
//   tuning/GPU/ab01..ef.json  tuning records of what is not complete, likewise
//
// and of nothing else, so that it can be looked into with the usual tools.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace smlora::tool {

struct ArchiveMember {
    std::string path;
    std::string bytes;
};

/// Writes the members, in their order, beside the target first; returns the bytes of the file. Throws Error{io}; then
/// nothing half-written stays.
std::uint64_t write_archive(const std::filesystem::path& file, const std::vector<ArchiveMember>& members);

/// Reads all of it. Throws Error{io} unless every member is a plain file with a path as above, no larger than a cache
/// takes, is in the manifest with its size and hash, and nothing of the manifest is missing: a file that was changed, or
/// made to leave the folder that it is unpacked to or to fill the memory, is refused as a whole.
[[nodiscard]] std::vector<ArchiveMember> read_archive(const std::filesystem::path& file);

/// What a member's path says.
struct MemberName {
    bool record = false;  ///< or a bundle
    std::string folder;   ///< of a record or bundle
    std::string key;      ///< empty for a bundle
};

/// Throws Error{io}, with the name of the archive `file`, for a path that is none of a kernel, record or bundle.
[[nodiscard]] MemberName parse_member_path(const std::filesystem::path& file, const std::string& path);

}  // namespace smlora::tool
