#include "cache/layer.hpp"

#include "cache/trust.hpp"
#include "util/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

namespace smlora::cache {
namespace {

// Far more than any kernel: a cubin is some hundred kilobytes, one with debug information some megabytes. A file that
// claims more is not read into memory to find out.
constexpr std::uint64_t largest_entry = std::uint64_t{256} << 20;

constexpr const char* key_field = "cache_key";

bool is_hexadecimal(std::string_view text, std::size_t length) {
    return text.size() == length && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::filesystem::path kernels_folder(const std::filesystem::path& root) { return version_folder(root) / "kernels"; }

bool has_key(const KernelEntry& entry, const std::string& key) {
    const auto field = entry.metadata.find(key_field);
    return field != entry.metadata.end() && field->is_string() && field->get_ref<const std::string&>() == key;
}

}  // namespace

bool is_key(std::string_view text) { return is_hexadecimal(text, 32); }

std::filesystem::path version_folder(const std::filesystem::path& root) { return root / "v1"; }

std::filesystem::path entry_file(const std::filesystem::path& root, const std::string& key) {
    return kernels_folder(root) / key.substr(0, 2) / key;
}

std::filesystem::path lock_file(const std::filesystem::path& root) { return version_folder(root) / "lock"; }

std::filesystem::path upkeep_file(const std::filesystem::path& root) { return version_folder(root) / "upkeep"; }

std::string encode_for(const std::string& key, const KernelEntry& entry) {
    KernelEntry stored = entry;
    stored.metadata[key_field] = key;
    return encode(stored);
}

Reading read_entry(util::FileSystem& files, const std::filesystem::path& root, const std::string& key) {
    Reading reading;
    std::string bytes;
    const int error = util::read_file(files, entry_file(root, key), largest_entry, bytes, reading.status);
    if (error == -ENOENT || error == -ENOTDIR) return reading;
    if (error == -EINVAL || error == -EFBIG) {
        reading.why = error == -EFBIG ? fmt::format("{} bytes are more than any kernel has", reading.status.size)
                                      : "not a regular file";
        reading.bad_content = true;
        return reading;
    }
    if (error != 0) {
        // It may be readable again later, so it is left alone.
        reading.why = "cannot be read: " + util::describe_error(error);
        return reading;
    }
    if (const auto refusal = refusal_of_file(reading.status)) {
        reading.why = *refusal;
        return reading;
    }
    reading.entry = decode(bytes, reading.why);
    if (reading.entry && !has_key(*reading.entry, key)) {
        reading.why = "is the entry of another key";
        reading.entry.reset();
    }
    reading.bad_content = !reading.entry;
    return reading;
}

Contents scan(util::FileSystem& files, const std::filesystem::path& root) {
    Contents contents;
    const std::filesystem::path kernels = kernels_folder(root);
    std::vector<std::string> folders;
    static_cast<void>(files.list(kernels, folders));
    for (const std::string& folder : folders) {
        if (!is_hexadecimal(folder, 2)) continue;
        std::vector<std::string> names;
        static_cast<void>(files.list(kernels / folder, names));
        for (const std::string& name : names) {
            const bool entry = is_key(name) && name.starts_with(folder);
            if (!entry && !name.starts_with(util::temporary_prefix)) continue;
            StoredFile found{entry ? name : std::string(), kernels / folder / name, {}};
            if (files.status(found.file, found.status) != 0) continue;
            (entry ? contents.entries : contents.temporaries).push_back(std::move(found));
        }
    }
    return contents;
}

bool remove_if_same(util::FileSystem& files, const std::filesystem::path& file, const util::FileStatus& status) {
    util::FileStatus now;
    return files.status(file, now) == 0 && now.same_file(status) && files.remove(file) == 0;
}

}  // namespace smlora::cache
