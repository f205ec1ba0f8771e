// What the tests of the cache share: a folder of their own, entries, a log that is kept.
#pragma once

#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "support/environment.hpp"
#include "util/files.hpp"
#include "util/hash.hpp"
#include "util/log.hpp"

#include <gtest/gtest.h>

#include <fmt/format.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace smlora::testing {

/// A new folder that is removed at the end.
class ScratchFolder {
 public:
    ScratchFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "smlora-test-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw std::filesystem::filesystem_error("mkdtemp", name, {});
        path_ = name;
    }
    ~ScratchFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
    std::filesystem::path path_;
};

class RecordingLog {
 public:
    RecordingLog()
        : logger([this](LogLevel level, std::string_view line) { lines_.emplace_back(level, std::string(line)); }) {}

    [[nodiscard]] std::vector<std::string> lines(LogLevel level) const {
        std::vector<std::string> chosen;
        for (const auto& [at, line] : lines_) {
            if (at == level) chosen.push_back(line);
        }
        return chosen;
    }
    [[nodiscard]] std::vector<std::string> warnings() const { return lines(LogLevel::warning); }

 private:
    std::vector<std::pair<LogLevel, std::string>> lines_;

 public:
    util::Logger logger;
};

using test::ScopedVariable;

/// Begins as a cubin does: ELF, 64 bits, little-endian, machine 190.
inline std::string fake_cubin(std::size_t bytes, char fill) {
    std::string cubin(bytes, fill);
    cubin.replace(0, 6,
                  std::string("\x7f"
                              "ELF\x02\x01"));
    cubin[18] = static_cast<char>(190);
    cubin[19] = '\0';
    return cubin;
}

inline cache::KernelEntry sample_entry(int number, std::size_t cubin_bytes = 100) {
    return {{{"kernel", fmt::format("grouped_product E={}", number)}, {"arch", "sm_90a"}, {"registers", number}},
            fake_cubin(cubin_bytes, static_cast<char>('a' + number % 26))};
}

inline std::string sample_key(int number) { return util::xxh128_hex(std::to_string(number)); }

inline std::string contents_of(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

inline void write_file(const std::filesystem::path& file, const std::string& bytes) {
    static_cast<void>(util::make_folders(util::real_file_system(), file.parent_path()));  // private, whatever the umask
    std::ofstream stream(file, std::ios::binary | std::ios::trunc);
    stream << bytes;
    stream.close();
    ASSERT_TRUE(stream) << file;
    std::filesystem::permissions(file, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

inline void set_age(const std::filesystem::path& file, std::chrono::seconds age) {
    std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() - age);
}

inline std::chrono::seconds age_of(const std::filesystem::path& file) {
    return std::chrono::duration_cast<std::chrono::seconds>(std::filesystem::file_time_type::clock::now() -
                                                            std::filesystem::last_write_time(file));
}

/// Every file below a folder, by its path relative to it.
inline std::vector<std::string> files_below(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    for (const auto& item : std::filesystem::recursive_directory_iterator(folder)) {
        if (!item.is_directory()) names.push_back(item.path().lexically_relative(folder).string());
    }
    std::sort(names.begin(), names.end());
    return names;
}

/// A cache in a scratch folder, without layers unless the test names some.
class CacheTest : public ::testing::Test {
 protected:
    [[nodiscard]] std::filesystem::path root() const { return scratch.path() / "cache"; }
    [[nodiscard]] cache::CacheOptions options() const {
        cache::CacheOptions options;
        options.root = root();
        options.layers.emplace();
        return options;
    }

    ScratchFolder scratch;
    RecordingLog log;
};

/// The same entry, but for the key that the cache notes in the metadata.
inline void expect_same(const std::optional<cache::KernelEntry>& loaded, const cache::KernelEntry& stored) {
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->cubin, stored.cubin);
    for (const auto& [name, value] : stored.metadata.items()) EXPECT_EQ(loaded->metadata.at(name), value);
}

}  // namespace smlora::testing
