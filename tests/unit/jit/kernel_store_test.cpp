// From specialisations to kernels in a cache on disk, with NVRTC: each is compiled once, by one process.
#include "jit/kernel_compiler.hpp"
#include "jit/kernel_library.hpp"
#include "jit/nvrtc_location.hpp"
#include "with_cache.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <atomic>
#include <barrier>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

namespace smlora::jit {
namespace {

using namespace test;

class EnsureCached : public WithCache {};

TEST_F(EnsureCached, CompilesOnceAndFindsItEverAfter) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    const CompileResult first = library.ensure_cached(sample_spec(), hopper);
    EXPECT_FALSE(first.found_in_cache);
    EXPECT_TRUE(first.stored);
    EXPECT_GT(first.compile_seconds, 0);
    EXPECT_EQ(first.spill_bytes, 0);

    const auto other_cache = open_cache();
    KernelLibrary other(*other_cache, log);
    const CompileResult second = other.ensure_cached(sample_spec(), hopper);
    EXPECT_TRUE(second.found_in_cache);
    EXPECT_TRUE(second.stored);
    EXPECT_EQ(second.compile_seconds, 0);
    EXPECT_EQ(library.counters().compiles, 1U);
    EXPECT_EQ(other.counters().compiles, 0U);
    EXPECT_EQ(other.counters().disk_hits, 1U);
    EXPECT_TRUE(warnings.empty());
}

TEST_F(EnsureCached, EntrySaysWhatItIsAndWhatItUses) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    KernelSpec spec = sample_spec();
    spec.dynamic_shared = 512;
    (void)library.ensure_cached(spec, hopper);
    const auto entries = cache->list();
    ASSERT_EQ(entries.size(), 1U);
    const nlohmann::json metadata = nlohmann::json::parse(entries[0].metadata);
    EXPECT_EQ(metadata["key"], entries[0].key);
    EXPECT_EQ(metadata["kernel"], "scale ROWS=64 FACTOR=3 Element=bf16");
    EXPECT_EQ(metadata["symbol"], "smlora_scale");
    EXPECT_EQ(metadata["arch"], "sm_90a");
    EXPECT_EQ(metadata["compiler"], Nvrtc::instance().version().name());
    EXPECT_EQ(metadata["threads"], 64);
    EXPECT_EQ(metadata["dynamic_shared"], 512);
    EXPECT_EQ(metadata["shared_bytes"], 128);
    EXPECT_EQ(metadata["spill_bytes"], 0);
    EXPECT_GT(metadata["registers"], 0);
    EXPECT_GT(metadata["compile_seconds"], 0.0);
    EXPECT_EQ(metadata["source"], source(spec));
    EXPECT_EQ(metadata["templates"].size(), 4U);
    EXPECT_EQ(entries[0].registers, metadata["registers"]);
    EXPECT_EQ(entries[0].kernel, metadata["kernel"].get<std::string>());
}

TEST_F(EnsureCached, ManyThreadsCompileOneKernelOnce) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] { EXPECT_TRUE(library.ensure_cached(sample_spec(), hopper).stored); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(library.counters().compiles, 1U);
}

TEST_F(EnsureCached, OfThreadsThatWaitForOneCompileOneReportsIt) {
    auto cache = open_cache();
    KernelLibrary library(*cache, log);
    std::atomic<int> compiled{0};
    std::barrier start(8);
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] {
            start.arrive_and_wait();
            const CompileResult result = library.ensure_cached(sample_spec(), hopper);
            compiled += result.found_in_cache ? 0 : 1;
            EXPECT_TRUE(result.stored);
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(compiled, 1);
    EXPECT_EQ(library.counters().compiles, 1U);
}

TEST_F(EnsureCached, WithoutCompilingAMissingKernelIsAnErrorOfItsOwn) {
    const ScopedVariable off("SMLORA_JIT", "off");
    auto cache = open_cache();
    {
        KernelLibrary library(*cache, log);
        expect_parts(message_of(ErrorCode::jit_off, [&] { (void)library.ensure_cached(sample_spec(), hopper); }),
                     {"kernel scale ROWS=64", "for sm_90a is in no layer of the cache", "SMLORA_JIT=off",
                      "`smlora-tune prewarm --arch sm_90a`"});
        EXPECT_EQ(library.counters().compiles, 0U);
    }
    {
        const ScopedVariable on("SMLORA_JIT", "on");
        EXPECT_FALSE(KernelLibrary(*cache, log).ensure_cached(sample_spec(), hopper).found_in_cache);
    }
    EXPECT_TRUE(KernelLibrary(*cache, log).ensure_cached(sample_spec(), hopper).found_in_cache);
    const ScopedVariable wrong("SMLORA_JIT", "no");
    expect_parts(message_of([&] { KernelLibrary library(*cache, log); }),
                 {"SMLORA_JIT: expected on or off, got \"no\""});
}

TEST_F(EnsureCached, HitsAndMissesAreCountedOverProcesses) {
    for (int process = 0; process < 3; ++process) {
        auto cache = open_cache();
        KernelLibrary library(*cache, log);
        (void)library.ensure_cached(sample_spec(), hopper);
    }
    const cache::UseCounts counts = open_cache()->use_counts();
    EXPECT_EQ(counts.hits, 2U);
    EXPECT_EQ(counts.misses, 1U);
}

TEST_F(EnsureCached, ManyThreadsCompileDifferentKernels) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            KernelSpec spec = sample_spec();
            spec.constants[1].integer = i / 2;
            EXPECT_TRUE(library.ensure_cached(spec, hopper).stored);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(library.counters().compiles, 4U);
    EXPECT_EQ(cache->list().size(), 4U);
}

TEST_F(EnsureCached, AFailureIsTriedAnew) {
    const std::string good = templates.read("ptx/math.cuh");
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    templates.write("ptx/math.cuh", "this is no C++\n");
    for (int attempt = 0; attempt < 2; ++attempt) {
        expect_parts(message_of(ErrorCode::compile, [&] { (void)library.ensure_cached(sample_spec(), hopper); }),
                     {"scale ROWS=64", "ptx/math.cuh(1)"});
    }
    EXPECT_TRUE(cache->list().empty());
    templates.write("ptx/math.cuh", good);
    EXPECT_TRUE(library.ensure_cached(sample_spec(), hopper).stored);
}

TEST_F(EnsureCached, ACacheThatCannotBeWrittenCostsNoSecondCompile) {
    const auto cache = open_cache("/proc/smlora-cannot-be-made");
    KernelLibrary library(*cache, log);
    const CompileResult first = library.ensure_cached(sample_spec(), hopper);
    EXPECT_FALSE(first.stored);
    EXPECT_FALSE(first.found_in_cache);
    const CompileResult second = library.ensure_cached(sample_spec(), hopper);
    EXPECT_FALSE(second.stored);
    EXPECT_TRUE(second.found_in_cache);
    EXPECT_EQ(library.counters().compiles, 1U);
    EXPECT_EQ(warnings.size(), 1U);
}

TEST_F(EnsureCached, AnEntryUnderAnotherKeysNameIsRejectedAndReplaced) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    KernelSpec other = sample_spec();
    other.constants[1].integer = 4;
    (void)library.ensure_cached(sample_spec(), hopper);
    (void)library.ensure_cached(other, hopper);
    const CompilerVersion compiler = Nvrtc::instance().version();
    const Templates files(templates.path());
    const auto key = cache_key(compile_request(sample_spec(), hopper, compiler, files));
    const auto other_key = cache_key(compile_request(other, hopper, compiler, files));
    ASSERT_TRUE(std::filesystem::exists(entry_file(key)));
    std::filesystem::copy_file(entry_file(other_key), entry_file(key),
                               std::filesystem::copy_options::overwrite_existing);

    const auto fresh_cache = open_cache();
    KernelLibrary fresh(*fresh_cache, log);
    EXPECT_FALSE(fresh.ensure_cached(sample_spec(), hopper).found_in_cache);
    EXPECT_GE(fresh.counters().rejected + fresh_cache->rejected(), 1U);
    EXPECT_EQ(fresh.counters().compiles, 1U);
    EXPECT_TRUE(fresh.ensure_cached(sample_spec(), hopper).found_in_cache);
}

TEST_F(EnsureCached, AFolderOfTemplatesThatIsNoneIsRefusedAtOnce) {
    const ScopedVariable wrong("SMLORA_TEMPLATE_DIR", "/nowhere");
    const auto cache = open_cache();
    expect_parts(message_of(ErrorCode::io, [&] { KernelLibrary library(*cache, log); }), {"SMLORA_TEMPLATE_DIR"});
}

// Run by the test below in a process of its own.
TEST(WarmProcess, DISABLED_FindsItsKernelWithoutNvrtc) {
    const char* root = std::getenv("SMLORA_TEST_ROOT");
    ASSERT_NE(root, nullptr);
    util::Logger log;
    cache::CacheOptions options;
    options.root = root;
    options.layers = std::vector<std::filesystem::path>();
    cache::Cache cache(options, log);
    KernelLibrary library(cache, log);
    EXPECT_TRUE(library.ensure_cached(sample_spec(), hopper).found_in_cache);
    std::ifstream maps("/proc/self/maps");
    const std::string mapped{std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>()};
    EXPECT_NE(mapped.find("libc"), std::string::npos);
    EXPECT_EQ(mapped.find("libnvrtc"), std::string::npos);
}

TEST_F(EnsureCached, ASecondProcessNeverOpensNvrtc) {
    if (search_nvrtc().found.empty()) {
        GTEST_SKIP() << "NVRTC is in none of the usual folders";
    }
    {
        const auto cache = open_cache();
        KernelLibrary library(*cache, log);
        (void)library.ensure_cached(sample_spec(), hopper);
    }
    const ScopedVariable root("SMLORA_TEST_ROOT", (folder.path() / "root").c_str());
    const std::string command =
        fmt::format("{} --gtest_also_run_disabled_tests --gtest_filter=WarmProcess.* > {} 2>&1",
                    std::filesystem::read_symlink("/proc/self/exe").string(), (folder.path() / "output").string());
    EXPECT_EQ(std::system(command.c_str()), 0) << folder.read("output");
    EXPECT_NE(folder.read("output").find("1 test"), std::string::npos);
}

}  // namespace
}  // namespace smlora::jit
