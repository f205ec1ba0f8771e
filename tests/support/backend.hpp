// The two backends under test: one engine each, with a cache root that lasts as long as the program.
#pragma once

#include "support/random.hpp"

#include <smlora/engine.hpp>
#include <smlora/system.hpp>

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

namespace smlora::test {

/// A folder of our own, gone with everything in it at the end.
class TemporaryFolder {
 public:
    TemporaryFolder() {
        std::string path = (std::filesystem::temp_directory_path() / "smlora-test-XXXXXX").string();
        if (::mkdtemp(path.data()) == nullptr) {
            throw std::system_error(errno, std::generic_category(), "mkdtemp " + path);
        }
        path_ = path;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
    std::filesystem::path path_;
};

inline std::string name_of(Backend backend) { return backend == Backend::cuda ? "cuda" : "cpu"; }

/// Why this backend cannot be tested here; nothing if it can. SMLORA_TEST_BACKENDS=cpu,cuda selects backends by name.
inline std::optional<std::string> why_not(Backend backend) {
    if (const char* selected = std::getenv("SMLORA_TEST_BACKENDS")) {
        std::istringstream list(selected);
        bool found = false;
        for (std::string item; std::getline(list, item, ',');) found = found || item == name_of(backend);
        if (!found) return name_of(backend) + " is not in SMLORA_TEST_BACKENDS=" + selected;
    }
    if (backend == Backend::cpu) return std::nullopt;
    static const std::optional<std::string> no_gpu = []() -> std::optional<std::string> {
        const SystemInfo system = system_info();
        if (!system.driver_found) return "needs a GPU: " + system.driver_error;
        if (system.devices.empty()) return "needs a GPU: the driver reports none";
        if (!system.nvrtc_found) return "needs NVRTC: " + system.nvrtc_error;
        return std::nullopt;
    }();
    return no_gpu;
}

inline EngineOptions options_of(Backend backend, const TemporaryFolder& cache) {
    EngineOptions options;
    options.backend = backend;
    options.cache_root = cache.path() / "cache";
    options.cache_layers.emplace();
    // What is tested is what operations compute, not which candidate would be fastest.
    options.tuning = TuningPolicy::record_only;
    return options;
}

/// The engine that tests share: kernels are compiled once for the whole program, never into the user's cache.
/// SMLORA_TEST_CACHE names a folder that keeps them from one run to the next.
inline const Engine& engine_of(Backend backend) {
    static const TemporaryFolder folder;
    const auto options = [](Backend of) {
        EngineOptions chosen = options_of(of, folder);
        if (const char* kept = std::getenv("SMLORA_TEST_CACHE")) chosen.cache_root = kept;
        return chosen;
    };
    static const Engine cpu(options(Backend::cpu));
    if (backend == Backend::cpu) return cpu;
    static const Engine cuda(options(Backend::cuda));
    return cuda;
}

/// Skips where the backend cannot run, and says how to repeat the inputs of a failure.
class BackendFixture : public ::testing::Test {
 protected:
    void use(Backend backend) {
        backend_ = backend;
        if (const auto reason = why_not(backend)) GTEST_SKIP() << *reason;
    }
    void TearDown() override {
        if (HasFailure()) std::cout << "repeat these inputs with SMLORA_TEST_SEED=" << run_seed() << '\n';
    }
    [[nodiscard]] Backend backend() const { return backend_; }
    [[nodiscard]] const Engine& engine() const { return engine_of(backend_); }

 private:
    Backend backend_ = Backend::cpu;
};

/// A test that runs once on each backend.
class OnEachBackend : public BackendFixture, public ::testing::WithParamInterface<Backend> {
 protected:
    void SetUp() override { use(GetParam()); }
};

/// A test of what only a GPU has.
class OnGpu : public BackendFixture {
 protected:
    void SetUp() override { use(Backend::cuda); }
};

#define SMLORA_ON_EACH_BACKEND(Prefix, Fixture)                                                                   \
    INSTANTIATE_TEST_SUITE_P(Prefix, Fixture, ::testing::Values(::smlora::Backend::cpu, ::smlora::Backend::cuda), \
                             [](const auto& case_info) { return ::smlora::test::name_of(case_info.param); })

}  // namespace smlora::test
