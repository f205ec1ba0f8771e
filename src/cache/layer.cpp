#include "cache/layer.hpp"

#include "cache/trust.hpp"
#include "util/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <new>

namespace smlora::cache {
namespace {

constexpr std::string_view record_suffix = ".json";
constexpr std::string_view bundle_suffix = ".jsonl";

constexpr const char* key_field = "cache_key";

bool is_hexadecimal(std::string_view text, std::size_t length) {
    return text.size() == length && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool fits_folder(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
}

std::filesystem::path kernels_folder(const std::filesystem::path& root) { return version_folder(root) / "kernels"; }

std::filesystem::path tuning_folder(const std::filesystem::path& root) { return version_folder(root) / "tuning"; }

/// The key of a record's file name; empty when the name is none.
std::string record_key(std::string_view name) {
    if (!name.ends_with(record_suffix)) return {};
    name.remove_suffix(record_suffix.size());
    return is_key(name) ? std::string(name) : std::string();
}

std::string why_unfit(int error, const util::FileStatus& status, const char* kind) {
    return error == -EFBIG ? fmt::format("{} bytes, more than any {} has", status.size, kind)
                           : "it is not a regular file";
}

/// Unless there is no such file: one that cannot be looked at may be readable again later.
void add_unless_missing(util::FileSystem& files, StoredFile found, std::vector<StoredFile>& list) {
    const int error = files.status(found.file, found.status);
    if (!util::is_missing(error)) list.push_back(std::move(found));
}

bool has_key(const KernelEntry& entry, const std::string& key) {
    const auto field = entry.metadata.find(key_field);
    return field != entry.metadata.end() && field->is_string() && field->get_ref<const std::string&>() == key;
}

}  // namespace

bool is_key(std::string_view text) { return is_hexadecimal(text, 32); }

bool is_record_folder(std::string_view text) {
    return !text.empty() && text.size() <= 100 && text.front() != '.' &&
           std::all_of(text.begin(), text.end(), fits_folder);
}

std::string record_folder(std::string_view gpu) {
    std::string folder(gpu.substr(0, 100));
    std::replace_if(
        folder.begin(), folder.end(), [](char c) { return !fits_folder(c); }, '_');
    if (folder.empty() || folder.front() == '.') folder.insert(0, 1, '_');
    return folder.substr(0, 100);
}

std::filesystem::path version_folder(const std::filesystem::path& root) { return root / "v1"; }

std::filesystem::path entry_file(const std::filesystem::path& root, const std::string& key) {
    return kernels_folder(root) / key.substr(0, 2) / key;
}

std::filesystem::path record_file(const std::filesystem::path& root, const std::string& folder,
                                  const std::string& key) {
    return tuning_folder(root) / folder / (key + std::string(record_suffix));
}

std::filesystem::path bundle_file(const std::filesystem::path& root, const std::string& folder) {
    return tuning_folder(root) / (folder + std::string(bundle_suffix));
}

std::string bundle_folder(std::string_view name) {
    if (!name.ends_with(bundle_suffix)) return {};
    name.remove_suffix(bundle_suffix.size());
    return is_record_folder(name) ? std::string(name) : std::string();
}

std::filesystem::path lock_file(const std::filesystem::path& root) { return version_folder(root) / "lock"; }

std::filesystem::path upkeep_file(const std::filesystem::path& root) { return version_folder(root) / "upkeep"; }

std::filesystem::path compilers_file(const std::filesystem::path& root) { return version_folder(root) / "compilers"; }

std::filesystem::path use_counts_file(const std::filesystem::path& root) { return version_folder(root) / "uses"; }

std::string encode_for(const std::string& key, const KernelEntry& entry) {
    KernelEntry stored = entry;
    stored.metadata[key_field] = key;
    return encode(stored);
}

Reading read_entry(util::FileSystem& files, const Layer& layer, const std::string& key) {
    Reading reading;
    std::string bytes;
    const auto refusal_of = [&](const util::FileStatus& status) { return refusal_of_file(status, layer.kernels); };
    const int error = util::read_file(files, entry_file(layer.root, key), largest_entry, bytes, reading.status,
                                      [&](const util::FileStatus& status) { return !refusal_of(status); });
    if (util::is_missing(error)) return reading;
    if (error == -EINVAL || error == -EFBIG) {
        reading.why = why_unfit(error, reading.status, "kernel");
        reading.bad_content = true;
        return reading;
    }
    if (const auto refusal = error == -EPERM ? refusal_of(reading.status) : std::nullopt) {
        reading.why = *refusal;
        return reading;
    }
    if (error != 0) {
        // It may be readable again later, so it is left alone.
        reading.why = "it cannot be read: " + util::describe_error(error);
        return reading;
    }
    try {
        reading.entry = decode(bytes, reading.why);
    } catch (const std::bad_alloc&) {
        reading.why = "it cannot be read: " + util::describe_error(-ENOMEM);
        return reading;
    }
    if (reading.entry && !has_key(*reading.entry, key)) {
        reading.why = "it belongs to another key";
        reading.entry.reset();
    }
    reading.bad_content = !reading.entry;
    return reading;
}

std::vector<StoredFile> record_files(util::FileSystem& files, const std::filesystem::path& root,
                                     const std::string& folder, const std::string& key) {
    std::vector<StoredFile> found;
    add_unless_missing(files, {key, folder, record_file(root, folder, key), {}}, found);
    for (StoredFile& bundle : bundle_files(files, root, folder)) found.push_back(std::move(bundle));
    return found;
}

std::vector<StoredFile> bundle_files(util::FileSystem& files, const std::filesystem::path& root,
                                     const std::string& folder) {
    std::vector<StoredFile> found;
    add_unless_missing(files, {"", folder, bundle_file(root, folder), {}}, found);
    return found;
}

std::vector<std::string> record_keys(util::FileSystem& files, const std::filesystem::path& root,
                                     const std::string& folder) {
    std::vector<std::string> names;
    static_cast<void>(files.list(tuning_folder(root) / folder, names));
    std::vector<std::string> keys;
    for (const std::string& name : names) {
        if (std::string key = record_key(name); !key.empty()) keys.push_back(std::move(key));
    }
    return keys;
}

RecordReading read_record(util::FileSystem& files, const StoredFile& stored) {
    RecordReading reading;
    RecordText record{stored, {}};
    const auto refusal_of = [&](const util::FileStatus& status) { return refusal_of_file(status, stored.trusted); };
    const int error = util::read_file(files, record.file, largest_record, record.text, record.status,
                                      [&](const util::FileStatus& status) { return !refusal_of(status); });
    if (util::is_missing(error)) return reading;
    if (error == -EINVAL || error == -EFBIG) {
        reading.why = why_unfit(error, record.status, "record");
        reading.refused = true;
    } else if (const auto refusal = error == -EPERM ? refusal_of(record.status) : std::nullopt) {
        reading.why = *refusal;
        reading.refused = true;
    } else if (error != 0) {
        reading.why = "it cannot be read: " + util::describe_error(error);
    } else {
        reading.record = std::move(record);
    }
    return reading;
}

Walk::Walk(util::FileSystem& files, const std::filesystem::path& root, Over over) : files_(files) {
    if (over == Over::everything) folders_.push_back({Folder::Kind::version, version_folder(root)});
    if (over != Over::kernels) folders_.push_back({Folder::Kind::tuning, tuning_folder(root)});
    if (over != Over::records) folders_.push_back({Folder::Kind::kernels, kernels_folder(root)});
}

bool Walk::step() {
    if (!found_.empty()) {
        auto [list, file] = std::move(found_.back());
        found_.pop_back();
        look_at(std::move(file), list);
        return true;
    }
    if (folders_.empty()) return false;
    const Folder folder = std::move(folders_.back());
    folders_.pop_back();
    list(folder);
    return true;
}

void Walk::list(const Folder& folder) {
    std::vector<std::string> names;
    const int error = files_.list(folder.path, names);
    if (error != 0 && !util::is_missing(error)) {
        contents.unreadable.push_back({folder.path, "cannot be read: " + util::describe_error(error)});
    }
    for (const std::string& name : names) find(folder, name);
}

void Walk::look_at(StoredFile file, List list) {
    const int error = files_.status(file.file, file.status);
    if (error == 0) {
        (contents.*list).push_back(std::move(file));
    } else if (!util::is_missing(error)) {
        contents.unreadable.push_back({file.file, "cannot be looked at: " + util::describe_error(error)});
    }
}

void Walk::find(const Folder& folder, const std::string& name) {
    const std::filesystem::path path = folder.path / name;
    if (name.starts_with(util::temporary_prefix)) {
        found_.push_back({&Contents::temporaries, {"", "", path, {}}});
        return;
    }
    switch (folder.kind) {
        case Folder::Kind::version:
            return;
        case Folder::Kind::kernels:
            if (is_hexadecimal(name, 2)) folders_.push_back({Folder::Kind::entries, path});
            return;
        case Folder::Kind::entries:
            if (is_key(name) && name.starts_with(folder.path.filename().string())) {
                found_.push_back({&Contents::entries, {name, "", path, {}}});
            }
            return;
        case Folder::Kind::tuning:
            if (std::string gpu = bundle_folder(name); !gpu.empty()) {
                found_.push_back({&Contents::bundles, {"", std::move(gpu), path, {}}});
            } else if (is_record_folder(name)) {
                folders_.push_back({Folder::Kind::records, path});
            }
            return;
        case Folder::Kind::records:
            if (std::string key = record_key(name); !key.empty()) {
                found_.push_back({&Contents::records, {std::move(key), folder.path.filename().string(), path, {}}});
            }
            return;
    }
}

Contents scan(util::FileSystem& files, const std::filesystem::path& root, Walk::Over over) {
    Walk walk(files, root, over);
    while (walk.step()) {
    }
    return std::move(walk.contents);
}

std::optional<int> remove_if_same(util::FileSystem& files, const std::filesystem::path& file,
                                  const util::FileStatus& status) {
    util::FileStatus now;
    if (const int error = files.status(file, now); error != 0) return error;
    if (!now.same_file(status)) return std::nullopt;
    return files.remove(file);
}

}  // namespace smlora::cache
