// What tests of stored and loaded kernels share: sample templates and caches on disk.
#pragma once

#include "cache/cache.hpp"
#include "gpu/arch.hpp"
#include "sample_templates.hpp"
#include "support/errors.hpp"
#include "temporary_folder.hpp"
#include "util/log.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::test {

inline const gpu::Arch hopper = gpu::arch_from_name("sm_90a");

class WithCache : public testing::Test {
 protected:
    void SetUp() override { write_sample_templates(templates); }

    /// The cache of a process of its own.
    [[nodiscard]] std::unique_ptr<cache::Cache> open_cache() { return open_cache(folder.path() / "root"); }
    [[nodiscard]] std::unique_ptr<cache::Cache> open_cache(const std::filesystem::path& root) {
        cache::CacheOptions options;
        options.root = root;
        options.layers = std::vector<std::filesystem::path>();
        return std::make_unique<cache::Cache>(options, log);
    }
    [[nodiscard]] std::filesystem::path entry_file(const std::string& key) const {
        return folder.path() / "root" / "v1" / "kernels" / key.substr(0, 2) / key;
    }

    TemporaryFolder folder;
    TemporaryFolder templates;
    ScopedVariable variable{"SMLORA_TEMPLATE_DIR", templates.path().c_str()};
    std::vector<std::string> warnings;
    util::Logger log{[this](LogLevel level, std::string_view line) {
        if (level == LogLevel::warning) {
            warnings.emplace_back(line);
        }
    }};
};

}  // namespace smlora::test
