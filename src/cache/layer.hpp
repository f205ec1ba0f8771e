// One folder of the cache: what lies where in it, reading a file of it, going through all of it.
//
//   CACHEDIR.TAG                    tells backup programs to pass by; only where the folder holds nothing but the cache
//   v1/lock                         a byte of it for each key, locked while a process compiles that key; it begins with
//                                   the bytes that the layer holds, see byte_count.hpp
//   v1/compilers                    which compiler a library is, see jit/compiler_memo.hpp
//   v1/upkeep                       its time of modification is that of the last sweep and eviction
//   v1/uses                         what processes did with the folder, see use_counts.hpp
//   v1/kernels/ab/ab01..ef          the entry of a key (32 hexadecimal digits), see entry.hpp; it is used last at its
//                                   time of modification, give or take an hour, or a second where the layer is
//                                   more than half full
//   v1/tuning/GPU/ab01..ef.json     what was measured on that GPU for a problem, see tuning/record.hpp
//   v1/tuning/GPU.jsonl             a bundle: what was measured on that GPU for many problems, see tuning/bundle.hpp
//   .tmp-PID-RANDOM beside each     a file that is being written, or was when its process died
#pragma once

#include "cache/entry.hpp"
#include "cache/folder.hpp"
#include "util/file_system.hpp"

#include <smlora/cache.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace smlora::cache {

/// Far more than any kernel: a cubin is some hundred kilobytes, one with debug information some megabytes. A file that
/// claims more is not read into memory to find out.
inline constexpr std::uint64_t largest_entry = std::uint64_t{256} << 20;

/// A hundred candidates with their samples are some ten kilobytes, a bundle of a thousand tunings half a megabyte.
inline constexpr std::uint64_t largest_record = std::uint64_t{16} << 20;

/// 32 lower-case hexadecimal digits. Nothing else may become a part of a path.
[[nodiscard]] bool is_key(std::string_view text);

/// 1 to 100 letters, digits, '-', '_' and '.', the first no '.': a folder of tuning records.
[[nodiscard]] bool is_record_folder(std::string_view text);

/// The folder for a GPU of this name, with '_' for what a folder's name cannot have. Two GPUs may share one: records
/// name theirs.
[[nodiscard]] std::string record_folder(std::string_view gpu);

[[nodiscard]] std::filesystem::path entry_file(const std::filesystem::path& root, const std::string& key);
/// `folder` and `key` fit for it, see is_record_folder and is_key.
[[nodiscard]] std::filesystem::path record_file(const std::filesystem::path& root, const std::string& folder,
                                                const std::string& key);
/// `folder` fits for it.
[[nodiscard]] std::filesystem::path bundle_file(const std::filesystem::path& root, const std::string& folder);
/// The folder of a bundle's file name; empty when the name is none.
[[nodiscard]] std::string bundle_folder(std::string_view name);
/// Its bytes below these are locked for keys; these, while the count of bytes is changed and while upkeep is done.
inline constexpr std::int64_t count_offset = std::int64_t{1} << 60;
inline constexpr std::int64_t upkeep_offset = count_offset + 1;
[[nodiscard]] std::filesystem::path lock_file(const std::filesystem::path& root);
[[nodiscard]] std::filesystem::path upkeep_file(const std::filesystem::path& root);
[[nodiscard]] std::filesystem::path compilers_file(const std::filesystem::path& root);
[[nodiscard]] std::filesystem::path use_counts_file(const std::filesystem::path& root);

/// The entry as it is stored, with the key in its metadata: a sound file under another key's name is found out.
[[nodiscard]] std::string encode_for(const std::string& key, const KernelEntry& entry);

struct Reading {
    std::optional<KernelEntry> entry;
    util::FileStatus status;
    std::string why;                     ///< why there is no entry; empty when there is no file
    std::optional<CacheProblem> folder;  ///< that was refused, so that nothing is known of a file
    bool bad_content = false;            ///< the file was read and is unsound, so that it is of no use to anyone
};

[[nodiscard]] Reading read_entry(const Layer& layer, const std::string& key);

struct StoredFile {
    std::string key;     ///< empty for a bundle and for a temporary file
    std::string folder;  ///< of a record or bundle
    std::filesystem::path file;
    util::FileStatus status;
    bool writable = false;         ///< in the writable layer, where the cache says so
    const Layer* layer = nullptr;  ///< in which it is, where the cache says so

    /// What it adds to the bytes that the layer holds, see byte_count.hpp: bundles are left out.
    [[nodiscard]] std::uint64_t counted_bytes() const { return key.empty() ? 0 : status.size; }
};

/// A tuning record or bundle as it is stored; what it says is its readers' affair.
struct RecordText : StoredFile {
    std::string text;

    [[nodiscard]] bool is_bundle() const { return key.empty(); }
};

/// What cannot be used, and why.
struct UnsoundFile : StoredFile {
    std::string why;
    bool useless = false;  ///< to everyone, so that it may be removed; else it may be readable again later
};

/// How many files were read to see whether they are sound.
struct Checked {
    std::uint64_t kernels = 0;
    std::uint64_t records = 0;
    std::uint64_t bundles = 0;
};

struct RecordReading {
    std::optional<RecordText> record;
    std::string why;                     ///< why there is none; empty when there is no file
    std::optional<CacheProblem> folder;  ///< that was refused, so that nothing is known of a file
    bool refused = false;                ///< it was looked at and may not be used
};

/// The record of `key` in `folder`, if there is one, and the bundle of `folder`, if there is one. Reads neither.
[[nodiscard]] std::vector<StoredFile> record_files(const Layer& layer, const std::string& folder,
                                                   const std::string& key);
[[nodiscard]] std::vector<StoredFile> bundle_files(const Layer& layer, const std::string& folder);

/// The keys of the records in `folder`.
[[nodiscard]] std::vector<std::string> record_keys(const Layer& layer, const std::string& folder);

[[nodiscard]] RecordReading read_record(const Layer& layer, const StoredFile& stored);

struct Contents {
    std::vector<StoredFile> entries;  ///< kernels, by their names; what they hold was not looked at
    std::vector<StoredFile> records;  ///< likewise
    std::vector<StoredFile> bundles;  ///< likewise
    std::vector<StoredFile> temporaries;
    std::vector<CacheProblem> unreadable;  ///< folders that cannot be read or trusted, files that cannot be looked at
};

/// Goes through a layer step by step, for those who may not take long at a time.
class Walk {
 public:
    enum class Over { everything, kernels, records };

    explicit Walk(const Layer& layer, Over over = Over::everything);

    /// Folders of kernels are gone through in another order each time, so that walks that are not finished see each in
    /// the end.
    void shuffle() { shuffled_ = true; }

    /// Lists one folder or looks at one file; false when nothing is left.
    bool step();

    /// How much of the kernels was looked at, 0 to 1: their keys are hashes, so that each folder has about as many.
    [[nodiscard]] double share_of_kernels() const;

    Contents contents;

 private:
    using List = std::vector<StoredFile> Contents::*;
    struct Stop {
        enum class Kind { version, kernels, entries, tuning, records } kind;
        std::filesystem::path path;
    };

    void list(const Stop& stop);
    void find(const Stop& stop, const std::string& name);
    void look_at(StoredFile file, List list);
    void add(CacheProblem problem);
    [[nodiscard]] std::size_t count_stops(Stop::Kind kind) const;

    const Layer layer_;
    bool shuffled_ = false;
    std::vector<Stop> stops_;
    std::size_t kernel_folders_ = 0;  ///< found so far
    std::optional<Folder> open_;
    std::size_t kernels_in_open_ = 0;
    std::vector<std::pair<List, StoredFile>> found_;  ///< in the open folder, not looked at yet
};

/// Every kernel, record, bundle and temporary file. What is none of them, is not there or vanishes meanwhile is passed
/// over.
[[nodiscard]] Contents scan(const Layer& layer, Walk::Over over = Walk::Over::everything);

/// Removes a file that was seen with `status`, unless it has been replaced or touched since. Between the look and the
/// removal another process may still publish a sound one, which is then lost: it costs a compile, never a wrong kernel.
/// Nothing when it stays; else zero or a negated errno.
std::optional<int> remove_if_same(const Layer& layer, const std::filesystem::path& file,
                                  const util::FileStatus& status);

}  // namespace smlora::cache
