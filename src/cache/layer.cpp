#include "cache/layer.hpp"

#include "util/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <random>

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

/// The key of a record's file name; empty when the name is none.
std::string record_key(std::string_view name) {
    if (!name.ends_with(record_suffix)) return {};
    name.remove_suffix(record_suffix.size());
    return is_key(name) ? std::string(name) : std::string();
}

std::string why_unfit(int error, const util::FileStatus& status, const char* kind) {
    if (error == -EFBIG) return fmt::format("{} bytes, more than any {} has", status.size, kind);
    return status.kind == util::FileStatus::Kind::link ? "it is a symbolic link" : "it is not a regular file";
}

std::string in_refused(const CacheProblem& folder) {
    return fmt::format("the folder {}: {}", folder.file.string(), folder.what);
}

/// Unless there is no such file: one that cannot be looked at may be readable again later.
void add_unless_missing(const Layer& layer, StoredFile found, std::vector<StoredFile>& list) {
    const int error = look_at(layer, found.file, found.status);
    if (!util::is_missing(error)) list.push_back(std::move(found));
}

bool has_key(const KernelEntry& entry, const std::string& key) {
    const auto field = entry.metadata.find(key_field);
    return field != entry.metadata.end() && field->is_string() && field->get_ref<const std::string&>() == key;
}

Reading read_entry_of(const Layer& layer, const Folder& folder, const std::string& key) {
    Reading reading;
    if (folder.refused()) {
        reading.folder = folder.refused();
        reading.why = in_refused(*folder.refused());
        return reading;
    }
    std::string bytes;
    const auto refusal_of = [&](const util::FileStatus& status) { return refusal_of_file(status, layer.kernels); };
    const int error = util::read_file(layer.files, folder.at(key), largest_entry, bytes, reading.status,
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

Reading read_entry(const Layer& layer, const std::string& key) {
    const std::string name = key.substr(0, 2);
    if (const auto kernels = layer.kept ? layer.kept->get(layer) : nullptr) {
        Reading reading = read_entry_of(layer, Folder(layer, *kernels, name), key);
        if (reading.entry) return reading;
    }
    Folder kernels(layer, kernels_folder(layer.root));
    if (kernels.error() != 0) return read_entry_of(layer, kernels, key);
    Reading reading = read_entry_of(layer, Folder(layer, kernels, name), key);
    if (reading.entry && layer.kept) layer.kept->keep(std::move(kernels));
    return reading;
}

std::vector<StoredFile> record_files(const Layer& layer, const std::string& folder, const std::string& key) {
    std::vector<StoredFile> found;
    add_unless_missing(layer, {key, folder, record_file(layer.root, folder, key), {}}, found);
    for (StoredFile& bundle : bundle_files(layer, folder)) found.push_back(std::move(bundle));
    return found;
}

std::vector<StoredFile> bundle_files(const Layer& layer, const std::string& folder) {
    std::vector<StoredFile> found;
    add_unless_missing(layer, {"", folder, bundle_file(layer.root, folder), {}}, found);
    return found;
}

std::vector<std::string> record_keys(const Layer& layer, const std::string& folder) {
    std::vector<std::string> names;
    static_cast<void>(layer.files.list(Folder(layer, tuning_folder(layer.root) / folder).itself(), names));
    std::vector<std::string> keys;
    for (const std::string& name : names) {
        if (std::string key = record_key(name); !key.empty()) keys.push_back(std::move(key));
    }
    return keys;
}

RecordReading read_record(const Layer& layer, const StoredFile& stored) {
    RecordReading reading;
    const Folder folder = folder_of(layer, stored.file);
    if (folder.refused()) {
        reading.folder = folder.refused();
        reading.why = in_refused(*folder.refused());
        return reading;
    }
    RecordText record{stored, {}};
    const auto refusal_of = [&](const util::FileStatus& status) { return refusal_of_file(status, layer.records); };
    const int error = util::read_file(layer.files, folder.at(stored.file), largest_record, record.text, record.status,
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

Walk::Walk(const Layer& layer, Over over) : layer_(layer) {
    const std::filesystem::path& root = layer_.root;
    if (over == Over::everything) stops_.push_back({Stop::Kind::version, version_folder(root)});
    if (over != Over::kernels) stops_.push_back({Stop::Kind::tuning, tuning_folder(root)});
    if (over != Over::records) stops_.push_back({Stop::Kind::kernels, kernels_folder(root)});
}

bool Walk::step() {
    if (!found_.empty()) {
        auto [list, file] = std::move(found_.back());
        found_.pop_back();
        look_at(std::move(file), list);
        return true;
    }
    if (stops_.empty()) return false;
    const Stop stop = std::move(stops_.back());
    stops_.pop_back();
    list(stop);
    return true;
}

void Walk::list(const Stop& stop) {
    std::vector<std::string> names;
    open_.emplace(layer_, stop.path);
    const int error = layer_.files.list(open_->itself(), names);
    if (open_->refused()) {
        add(*open_->refused());
    } else if (error != 0 && !util::is_missing(error)) {
        add({stop.path, "cannot be read: " + util::describe_error(error)});
    }
    for (const std::string& name : names) find(stop, name);
    kernels_in_open_ = stop.kind == Stop::Kind::entries ? found_.size() : 0;
    if (stop.kind != Stop::Kind::kernels) return;
    kernel_folders_ = count_stops(Stop::Kind::entries);
    if (shuffled_) {
        std::shuffle(stops_.end() - static_cast<std::ptrdiff_t>(kernel_folders_), stops_.end(), std::random_device());
    }
}

std::size_t Walk::count_stops(Stop::Kind kind) const {
    return static_cast<std::size_t>(
        std::count_if(stops_.begin(), stops_.end(), [kind](const Stop& stop) { return stop.kind == kind; }));
}

double Walk::share_of_kernels() const {
    if (count_stops(Stop::Kind::kernels) > 0) return 0;
    if (kernel_folders_ == 0) return 1;
    double left = static_cast<double>(count_stops(Stop::Kind::entries));
    if (kernels_in_open_ > 0) left += static_cast<double>(found_.size()) / static_cast<double>(kernels_in_open_);
    return 1 - left / static_cast<double>(kernel_folders_);
}

void Walk::look_at(StoredFile file, List list) {
    const int error = layer_.files.status(open_->at(file.file), file.status);
    if (error == 0) {
        (contents.*list).push_back(std::move(file));
    } else if (!util::is_missing(error)) {
        add({file.file, "cannot be looked at: " + util::describe_error(error)});
    }
}

/// Once: all that lies in a folder which is refused meets it.
void Walk::add(CacheProblem problem) {
    const auto is_same = [&](const CacheProblem& known) { return known.file == problem.file; };
    if (std::none_of(contents.unreadable.begin(), contents.unreadable.end(), is_same)) {
        contents.unreadable.push_back(std::move(problem));
    }
}

void Walk::find(const Stop& stop, const std::string& name) {
    const std::filesystem::path path = stop.path / name;
    if (name.starts_with(util::temporary_prefix)) {
        found_.push_back({&Contents::temporaries, {"", "", path, {}}});
        return;
    }
    switch (stop.kind) {
        case Stop::Kind::version:
            return;
        case Stop::Kind::kernels:
            if (is_hexadecimal(name, 2)) stops_.push_back({Stop::Kind::entries, path});
            return;
        case Stop::Kind::entries:
            if (is_key(name) && name.starts_with(stop.path.filename().string())) {
                found_.push_back({&Contents::entries, {name, "", path, {}}});
            }
            return;
        case Stop::Kind::tuning:
            if (std::string gpu = bundle_folder(name); !gpu.empty()) {
                found_.push_back({&Contents::bundles, {"", std::move(gpu), path, {}}});
            } else if (is_record_folder(name)) {
                stops_.push_back({Stop::Kind::records, path});
            }
            return;
        case Stop::Kind::records:
            if (std::string key = record_key(name); !key.empty()) {
                found_.push_back({&Contents::records, {std::move(key), stop.path.filename().string(), path, {}}});
            }
            return;
    }
}

Contents scan(const Layer& layer, Walk::Over over) {
    Walk walk(layer, over);
    while (walk.step()) {
    }
    return std::move(walk.contents);
}

std::optional<int> remove_if_same(const Layer& layer, const std::filesystem::path& file,
                                  const util::FileStatus& status) {
    const Folder folder = folder_of(layer, file);
    util::FileStatus now;
    if (const int error = layer.files.status(folder.at(file), now); error != 0) return error;
    if (!now.same_file(status)) return std::nullopt;
    return layer.files.remove(folder.at(file));
}

}  // namespace smlora::cache
