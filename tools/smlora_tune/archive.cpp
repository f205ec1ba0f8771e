#include "smlora_tune/archive.hpp"

#include "smlora_tune/publish.hpp"

#include "cache/layer.hpp"
#include "util/hash.hpp"
#include "util/json.hpp"
#include "util/printable.hpp"

#include <smlora/error.hpp>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <system_error>
#include <utility>

namespace smlora::tool {
namespace {

constexpr int archive_format = 1;
constexpr const char* manifest_path = "manifest.json";

// More than a cache holds by default, and what an archive may make this program take into memory.
constexpr std::uint64_t most_bytes = std::uint64_t{4} << 30;

// Of a hundred thousand members.
constexpr std::uint64_t largest_manifest = std::uint64_t{16} << 20;

// Bundles are packed to a quarter and records to a tenth. A file that unpacks to so many times its size is made to fill
// the memory; below the second bound it cannot.
constexpr std::uint64_t most_times_packed = 100;
constexpr std::uint64_t always_unpacked = std::uint64_t{16} << 20;

// By which libarchive says that a file's format is wrong, where the system has no EFTYPE.
constexpr int bad_format = EILSEQ;

struct FreeWriter {
    void operator()(::archive* a) const { ::archive_write_free(a); }
};
struct FreeReader {
    void operator()(::archive* a) const { ::archive_read_free(a); }
};
struct FreeEntry {
    void operator()(::archive_entry* e) const { ::archive_entry_free(e); }
};

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& what) {
    throw Error(ErrorCode::io, fmt::format("archive {}: {}", file.string(), what));
}

/// A member's path for a message.
std::string quoted(const std::string& path) { return fmt::format("\"{}\"", util::printable(path)); }

std::string reason(::archive* a) {
    const char* text = ::archive_error_string(a);
    if (text == nullptr) return "unknown error";
    // Errors of the system come with their number and mostly without its text.
    const int number = ::archive_errno(a);
    const bool of_system = number > 0 && number != bad_format;
    const std::string cause = of_system ? std::generic_category().message(number) : "";
    const bool said = cause.empty() || std::string(text).find(cause) != std::string::npos;
    return util::printable(said ? text : fmt::format("{}: {}", text, cause));
}

nlohmann::json describe(const ArchiveMember& member) {
    return {{"path", member.path}, {"bytes", member.bytes.size()}, {"xxh128", util::xxh128_hex(member.bytes)}};
}

/// Reads members one after another, and no more of them than fits into memory.
class MemberReader {
 public:
    MemberReader(::archive* a, std::filesystem::path file) : a_(a), file_(std::move(file)) {}

    /// The bytes of the member `path`, whose header was read. Throws Error{io} when it has more than `most`.
    std::string read(const std::string& path, std::uint64_t most) {
        std::string bytes;
        for (;;) {
            const void* block = nullptr;
            std::size_t size = 0;
            la_int64_t offset = 0;
            const int status = ::archive_read_data_block(a_, &block, &size, &offset);
            if (status == ARCHIVE_EOF) return bytes;
            if (status != ARCHIVE_OK) fail(file_, reason(a_));
            if (static_cast<std::uint64_t>(offset) != bytes.size()) fail(file_, "a member has holes");
            if (size > most - bytes.size()) fail(file_, fmt::format("{} has more than {} bytes", quoted(path), most));
            count(size);
            bytes.append(static_cast<const char*>(block), size);
        }
    }

 private:
    void count(std::uint64_t bytes) {
        unpacked_ += bytes;
        if (unpacked_ > most_bytes) fail(file_, fmt::format("it holds more than {} bytes", most_bytes));
        constexpr int of_the_file = -1;
        const auto packed = static_cast<std::uint64_t>(::archive_filter_bytes(a_, of_the_file));
        if (unpacked_ > std::max(always_unpacked, most_times_packed * packed)) {
            fail(file_, fmt::format("it unpacks to more than {} times its size", most_times_packed));
        }
    }

    ::archive* a_;
    std::filesystem::path file_;
    std::uint64_t unpacked_ = 0;
};

std::map<std::string, nlohmann::json> parse_manifest(const std::string& text, const std::filesystem::path& file) {
    const auto refuse = [&](const std::string& what) {
        fail(file, fmt::format("its manifest is none of an archive of this format: {}: {}", manifest_path, what));
    };
    const auto json = util::parse_json(text);
    if (!json.is_object()) refuse("expected a JSON object");
    const nlohmann::json format = json.value("format", nlohmann::json());
    if (format != archive_format) {
        refuse(fmt::format("\"format\": expected {}, got {}", archive_format, util::shown(format)));
    }
    const nlohmann::json list = json.value("files", nlohmann::json());
    if (!list.is_array()) refuse(fmt::format("\"files\": expected an array, got {}", util::shown(list)));
    std::map<std::string, nlohmann::json> files;
    for (const auto& item : list) {
        if (!item.is_object() || !item.contains("path") || !item["path"].is_string()) {
            refuse(fmt::format("\"files\": expected {{\"path\", \"bytes\", \"xxh128\"}}, got {}", util::shown(item)));
        }
        files[item["path"].get<std::string>()] = item;
    }
    return files;
}

/// As libarchive calls what writes for it.
::la_ssize_t append_to(::archive*, void* text, const void* bytes, std::size_t size) {
    static_cast<std::string*>(text)->append(static_cast<const char*>(bytes), size);
    return static_cast<::la_ssize_t>(size);
}

}  // namespace

MemberName parse_member_path(const std::filesystem::path& file, const std::string& path) {
    const auto refuse = [&]() {
        fail(file,
             fmt::format("member {}: expected kernels/ab/KEY, tuning/GPU.jsonl or tuning/GPU/KEY.json", quoted(path)));
    };
    const std::size_t first = path.find('/');
    MemberName name;
    if (first != std::string::npos && path.substr(0, first) == "tuning") {
        name.folder = cache::bundle_folder(path.substr(first + 1));
        name.record = !name.folder.empty();
        if (name.record) return name;
    }
    const std::size_t second = first == std::string::npos ? first : path.find('/', first + 1);
    if (second == std::string::npos) refuse();
    const std::string kind = path.substr(0, first);
    name.folder = path.substr(first + 1, second - first - 1);
    name.key = path.substr(second + 1);
    if (kind == "kernels") {
        if (!cache::is_key(name.key) || name.key.substr(0, 2) != name.folder) refuse();
        name.folder.clear();
        return name;
    }
    constexpr std::string_view suffix = ".json";
    if (kind != "tuning" || !cache::is_record_folder(name.folder) || !name.key.ends_with(suffix)) refuse();
    name.record = true;
    name.key.resize(name.key.size() - suffix.size());
    if (!cache::is_key(name.key)) refuse();
    return name;
}

std::uint64_t write_archive(const std::filesystem::path& file, const std::vector<ArchiveMember>& members) {
    nlohmann::json manifest{{"format", archive_format}, {"files", nlohmann::json::array()}};
    for (const ArchiveMember& member : members) manifest["files"].push_back(describe(member));

    std::string text;
    const std::unique_ptr<::archive, FreeWriter> a(::archive_write_new());
    // Without the time of writing: the same cache gives the same file. Not filled up to a block of a tape.
    if (::archive_write_set_bytes_in_last_block(a.get(), 1) != ARCHIVE_OK ||
        ::archive_write_add_filter_gzip(a.get()) != ARCHIVE_OK ||
        ::archive_write_set_filter_option(a.get(), "gzip", "timestamp", nullptr) != ARCHIVE_OK ||
        ::archive_write_set_format_ustar(a.get()) != ARCHIVE_OK ||
        ::archive_write_open(a.get(), &text, nullptr, append_to, nullptr) != ARCHIVE_OK) {
        fail(file, reason(a.get()));
    }
    const auto add = [&](const ArchiveMember& member) {
        const std::unique_ptr<::archive_entry, FreeEntry> entry(::archive_entry_new());
        ::archive_entry_set_pathname(entry.get(), member.path.c_str());
        ::archive_entry_set_size(entry.get(), static_cast<la_int64_t>(member.bytes.size()));
        ::archive_entry_set_filetype(entry.get(), AE_IFREG);
        ::archive_entry_set_perm(entry.get(), 0600);
        ::archive_entry_set_mtime(entry.get(), 0, 0);
        if (::archive_write_header(a.get(), entry.get()) != ARCHIVE_OK ||
            ::archive_write_data(a.get(), member.bytes.data(), member.bytes.size()) !=
                static_cast<la_ssize_t>(member.bytes.size())) {
            fail(file, reason(a.get()));
        }
    };
    add({manifest_path, manifest.dump(1) + "\n"});
    for (const ArchiveMember& member : members) add(member);
    if (::archive_write_close(a.get()) != ARCHIVE_OK) fail(file, reason(a.get()));
    publish("archive", file, text);
    return text.size();
}

std::vector<ArchiveMember> read_archive(const std::filesystem::path& file) {
    const std::unique_ptr<::archive, FreeReader> a(::archive_read_new());
    ::archive_read_support_filter_gzip(a.get());
    ::archive_read_support_format_tar(a.get());
    constexpr std::size_t block_bytes = 1 << 16;
    if (::archive_read_open_filename(a.get(), file.c_str(), block_bytes) != ARCHIVE_OK) {
        if (::archive_errno(a.get()) != bad_format) fail(file, reason(a.get()));
        fail(file, "it is no archive of smlora, which is a gzipped tar that begins with " + std::string(manifest_path));
    }

    std::vector<ArchiveMember> members;
    std::map<std::string, nlohmann::json> expected;
    bool has_manifest = false;
    MemberReader reader(a.get(), file);
    ::archive_entry* entry = nullptr;
    int status = ARCHIVE_OK;
    while ((status = ::archive_read_next_header(a.get(), &entry)) == ARCHIVE_OK) {
        const char* const name = ::archive_entry_pathname(entry);
        const std::string path = name == nullptr ? "" : name;
        if (::archive_entry_filetype(entry) != AE_IFREG || ::archive_entry_hardlink(entry) != nullptr) {
            fail(file, fmt::format("{} is no plain file", quoted(path)));
        }
        if (!has_manifest) {
            if (path != manifest_path)
                fail(file, fmt::format("it begins with {}, not with its manifest", quoted(path)));
            expected = parse_manifest(reader.read(path, largest_manifest), file);
            has_manifest = true;
            continue;
        }
        const bool record = parse_member_path(file, path).record;
        const auto described = expected.find(path);
        if (described == expected.end()) fail(file, fmt::format("{} is not in its manifest, or twice", quoted(path)));
        ArchiveMember member{path, reader.read(path, record ? cache::largest_record : cache::largest_entry)};
        if (describe(member) != described->second) {
            fail(file, fmt::format("{} is not what its manifest says: {} bytes, hash {}", quoted(path),
                                   member.bytes.size(), util::xxh128_hex(member.bytes)));
        }
        expected.erase(described);
        members.push_back(std::move(member));
    }
    if (status != ARCHIVE_EOF) fail(file, reason(a.get()));
    if (!has_manifest) fail(file, "it is empty");
    if (!expected.empty()) fail(file, fmt::format("{} is missing", quoted(expected.begin()->first)));
    return members;
}

}  // namespace smlora::tool
