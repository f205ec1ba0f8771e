// Archives that smlora-tune would not write.
#pragma once

#include "smlora_tune/archive.hpp"

#include "util/hash.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace smlora::tool {

/// A gzipped tar of whatever is wanted, well-formed or not.
class CraftedArchive {
 public:
    explicit CraftedArchive(const std::string& path) : a_(::archive_write_new()) {
        ::archive_write_add_filter_gzip(a_);
        ::archive_write_set_format_ustar(a_);
        ::archive_write_open_filename(a_, path.c_str());
    }
    ~CraftedArchive() { ::archive_write_free(a_); }
    CraftedArchive(const CraftedArchive&) = delete;
    CraftedArchive& operator=(const CraftedArchive&) = delete;

    void add(const std::string& path, const std::string& bytes, unsigned type = AE_IFREG) {
        ::archive_entry* entry = ::archive_entry_new();
        ::archive_entry_set_pathname(entry, path.c_str());
        ::archive_entry_set_filetype(entry, type);
        ::archive_entry_set_perm(entry, 0600);
        if (type == AE_IFLNK) ::archive_entry_set_symlink(entry, "/etc/passwd");
        ::archive_entry_set_size(entry, type == AE_IFREG ? static_cast<la_int64_t>(bytes.size()) : 0);
        ::archive_write_header(a_, entry);
        if (type == AE_IFREG) ::archive_write_data(a_, bytes.data(), bytes.size());
        ::archive_entry_free(entry);
    }
    void add_manifest(const std::vector<ArchiveMember>& members) {
        nlohmann::json manifest{{"format", 1}, {"files", nlohmann::json::array()}};
        for (const ArchiveMember& member : members) {
            manifest["files"].push_back(
                {{"path", member.path}, {"bytes", member.bytes.size()}, {"xxh128", util::xxh128_hex(member.bytes)}});
        }
        add("manifest.json", manifest.dump());
    }

 private:
    ::archive* a_;
};

}  // namespace smlora::tool
