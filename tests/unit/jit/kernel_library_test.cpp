// From specialisations to loaded kernels, with NVRTC and a cache on disk, and a driver without a GPU.
#include "jit/kernel_library.hpp"

#include "cache/cache.hpp"
#include "jit/compiler_memo.hpp"
#include "jit/kernel_compiler.hpp"
#include "jit/kernel_store.hpp"
#include "jit/nvrtc_location.hpp"
#include "sample_templates.hpp"
#include "unit/gpu/fake_driver.hpp"
#include "util/log.hpp"
#include "util/thread_pool.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

namespace smlora::jit {
namespace {

using test::FakeDriver;
using test::ScopedVariable;
using test::TemporaryFolder;

const gpu::Arch hopper = gpu::arch_from_name("sm_90a");

std::string message_of(ErrorCode code, const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), code) << error.what();
        return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
}

void expect_parts(const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* part : parts) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text;
    }
}

class WithCache : public testing::Test {
 protected:
    void SetUp() override { test::write_sample_templates(templates); }

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

class EnsureCached : public WithCache {};

TEST_F(EnsureCached, CompilesOnceAndFindsItEverAfter) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    const CompileResult first = library.ensure_cached(test::sample_spec(), hopper);
    EXPECT_FALSE(first.found_in_cache);
    EXPECT_TRUE(first.stored);
    EXPECT_GT(first.compile_seconds, 0);
    EXPECT_EQ(first.spill_bytes, 0);

    const auto other_cache = open_cache();
    KernelLibrary other(*other_cache, log);
    const CompileResult second = other.ensure_cached(test::sample_spec(), hopper);
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
    KernelSpec spec = test::sample_spec();
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
        threads.emplace_back([&] { EXPECT_TRUE(library.ensure_cached(test::sample_spec(), hopper).stored); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(library.counters().compiles, 1U);
}

TEST_F(EnsureCached, ManyThreadsCompileDifferentKernels) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            KernelSpec spec = test::sample_spec();
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
        expect_parts(message_of(ErrorCode::compile, [&] { (void)library.ensure_cached(test::sample_spec(), hopper); }),
                     {"scale ROWS=64", "ptx/math.cuh(1)"});
    }
    EXPECT_TRUE(cache->list().empty());
    templates.write("ptx/math.cuh", good);
    EXPECT_TRUE(library.ensure_cached(test::sample_spec(), hopper).stored);
}

TEST_F(EnsureCached, ACacheThatCannotBeWrittenCostsNoSecondCompile) {
    const auto cache = open_cache("/proc/smlora-cannot-be-made");
    KernelLibrary library(*cache, log);
    const CompileResult first = library.ensure_cached(test::sample_spec(), hopper);
    EXPECT_FALSE(first.stored);
    EXPECT_FALSE(first.found_in_cache);
    const CompileResult second = library.ensure_cached(test::sample_spec(), hopper);
    EXPECT_FALSE(second.stored);
    EXPECT_TRUE(second.found_in_cache);
    EXPECT_EQ(library.counters().compiles, 1U);
    EXPECT_EQ(warnings.size(), 1U);
}

TEST_F(EnsureCached, AnEntryUnderAnotherKeysNameIsRejectedAndReplaced) {
    const auto cache = open_cache();
    KernelLibrary library(*cache, log);
    KernelSpec other = test::sample_spec();
    other.constants[1].integer = 4;
    (void)library.ensure_cached(test::sample_spec(), hopper);
    (void)library.ensure_cached(other, hopper);
    const CompilerVersion compiler = Nvrtc::instance().version();
    const Templates files(templates.path());
    const auto key = cache_key(compile_request(test::sample_spec(), hopper, compiler, files));
    const auto other_key = cache_key(compile_request(other, hopper, compiler, files));
    ASSERT_TRUE(std::filesystem::exists(entry_file(key)));
    std::filesystem::copy_file(entry_file(other_key), entry_file(key),
                               std::filesystem::copy_options::overwrite_existing);

    const auto fresh_cache = open_cache();
    KernelLibrary fresh(*fresh_cache, log);
    EXPECT_FALSE(fresh.ensure_cached(test::sample_spec(), hopper).found_in_cache);
    EXPECT_GE(fresh.counters().rejected + fresh_cache->rejected(), 1U);
    EXPECT_EQ(fresh.counters().compiles, 1U);
    EXPECT_TRUE(fresh.ensure_cached(test::sample_spec(), hopper).found_in_cache);
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
    EXPECT_TRUE(library.ensure_cached(test::sample_spec(), hopper).found_in_cache);
    std::ifstream maps("/proc/self/maps");
    const std::string mapped{std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>()};
    EXPECT_NE(mapped.find("libc"), std::string::npos);
    EXPECT_EQ(mapped.find("libnvrtc"), std::string::npos);
}

TEST_F(EnsureCached, ASecondProcessNeverOpensNvrtc) {
    if (locate_nvrtc().empty()) {
        GTEST_SKIP() << "NVRTC is in none of the usual folders";
    }
    {
        const auto cache = open_cache();
        KernelLibrary library(*cache, log);
        (void)library.ensure_cached(test::sample_spec(), hopper);
    }
    const ScopedVariable root("SMLORA_TEST_ROOT", (folder.path() / "root").c_str());
    const std::string command =
        fmt::format("{} --gtest_also_run_disabled_tests --gtest_filter=WarmProcess.* > {} 2>&1",
                    std::filesystem::read_symlink("/proc/self/exe").string(), (folder.path() / "output").string());
    EXPECT_EQ(std::system(command.c_str()), 0) << folder.read("output");
    EXPECT_NE(folder.read("output").find("1 test"), std::string::npos);
}

class CompilerChoice : public WithCache {
 protected:
    void fill() {
        const auto cache = open_cache();
        LibraryCounters counters;
        KernelStore store(*cache, log, counters);
        (void)store.obtain(test::sample_spec(), hopper);
        EXPECT_EQ(counters.compiles, 1U);
    }
    [[nodiscard]] static NvrtcAccess no_nvrtc() {
        return {[] { return std::vector<std::filesystem::path>(); },
                []() -> const Nvrtc& { throw Error(ErrorCode::compile, "NVRTC is nowhere"); }};
    }
    [[nodiscard]] std::filesystem::path notes_file() const { return folder.path() / "root" / "v1" / "compilers"; }
};

TEST_F(CompilerChoice, WithoutNvrtcTheKernelsOfTheNotedCompilerServe) {
    fill();
    ASSERT_TRUE(std::filesystem::exists(notes_file()));
    const auto cache = open_cache();
    LibraryCounters counters;
    KernelStore store(*cache, log, counters, no_nvrtc());
    EXPECT_TRUE(store.obtain(test::sample_spec(), hopper)->found);
    EXPECT_EQ(counters.disk_hits, 1U);
}

TEST_F(CompilerChoice, WithoutNvrtcAndNotesTheEntriesThemselvesTellTheCompiler) {
    fill();
    std::filesystem::remove(notes_file());
    const auto cache = open_cache();
    LibraryCounters counters;
    KernelStore store(*cache, log, counters, no_nvrtc());
    EXPECT_TRUE(store.obtain(test::sample_spec(), hopper)->found);
}

TEST_F(CompilerChoice, WithoutNvrtcNewerCompilersGoFirstAndOlderOnesServeToo) {
    fill();
    ASSERT_TRUE(add_compiler_note(util::real_file_system(), folder.path() / "root", "build-id:ff", {99, 0, 1}));
    const auto cache = open_cache();
    LibraryCounters counters;
    KernelStore store(*cache, log, counters, no_nvrtc());
    EXPECT_TRUE(store.obtain(test::sample_spec(), hopper)->found);
    CompilerIdentity identity(util::real_file_system(), {folder.path() / "root"}, std::nullopt, no_nvrtc());
    EXPECT_EQ(identity.noted(), (std::vector{CompilerVersion{99, 0, 1}, Nvrtc::instance().version()}));
}

TEST_F(CompilerChoice, WithoutNvrtcAMissingKernelSaysBoth) {
    fill();
    const auto cache = open_cache();
    LibraryCounters counters;
    KernelStore store(*cache, log, counters, no_nvrtc());
    KernelSpec other = test::sample_spec();
    other.constants[1].integer = 4;
    expect_parts(message_of(ErrorCode::compile, [&] { (void)store.obtain(other, hopper); }),
                 {"scale ROWS=64 FACTOR=4", "sm_90a", "in no layer of the cache", "NVRTC is nowhere"});
    const auto empty = open_cache(folder.path() / "empty");
    KernelStore nothing(*empty, log, counters, no_nvrtc());
    expect_parts(message_of(ErrorCode::compile, [&] { (void)nothing.obtain(test::sample_spec(), hopper); }),
                 {"in no layer of the cache", "NVRTC is nowhere"});
}

TEST_F(CompilerChoice, ANoteIsBelievedWithoutOpeningTheLibrary) {
    const auto library = folder.write("libnvrtc.so.13", "no ELF file");
    ASSERT_TRUE(add_compiler_note(util::real_file_system(), folder.path(), *library_identity(library), {99, 1, 2}));
    NvrtcAccess access = no_nvrtc();
    access.locate = [&] { return std::vector{library}; };
    CompilerIdentity identity(util::real_file_system(), {folder.path()}, folder.path(), access);
    EXPECT_EQ(identity.installed(), (CompilerVersion{99, 1, 2}));
    folder.write("libnvrtc.so.13", "another file");
    CompilerIdentity changed(util::real_file_system(), {folder.path()}, folder.path(), access);
    EXPECT_FALSE(changed.installed());
    EXPECT_EQ(changed.why_not(), "NVRTC is nowhere");
}

TEST_F(CompilerChoice, AWrongNoteIsCorrectedAndGivesNoWrongKernel) {
    const Nvrtc& nvrtc = Nvrtc::instance();
    const std::filesystem::path root = folder.path() / "root";
    const std::string identity = *library_identity(nvrtc.file());
    ASSERT_TRUE(add_compiler_note(util::real_file_system(), root, identity, {99, 1, 2}));
    std::filesystem::permissions(root, std::filesystem::perms::owner_all);
    const auto cache = open_cache();
    LibraryCounters counters;
    NvrtcAccess access = NvrtcAccess::installed();
    access.locate = [&] { return std::vector{nvrtc.file()}; };
    KernelStore store(*cache, log, counters, access);
    const auto kernel = store.obtain(test::sample_spec(), hopper);
    EXPECT_EQ(kernel->entry.metadata["compiler"], nvrtc.version().name());
    EXPECT_EQ(kernel->key,
              cache_key(compile_request(test::sample_spec(), hopper, nvrtc.version(), Templates(templates.path()))));
    EXPECT_EQ(read_compiler_notes(util::real_file_system(), root).at(identity), nvrtc.version());
    EXPECT_TRUE(store.obtain(test::sample_spec(), hopper)->found);
}

class Get : public WithCache {
 protected:
    void SetUp() override {
        WithCache::SetUp();
        FakeDriver::stack() = {FakeDriver::primary_context()};
        driver.primary_references = 1;
        cache = open_cache();
        library.emplace(*cache, log);
    }
    void TearDown() override { FakeDriver::stack().clear(); }

    FakeDriver driver;
    std::unique_ptr<cache::Cache> cache;
    std::optional<KernelLibrary> library;
};

TEST_F(Get, LoadsOnceAndGivesTheSameKernelAgain) {
    const gpu::LoadedKernel& first = library->get(test::sample_spec(), hopper);
    EXPECT_NE(first.function, nullptr);
    EXPECT_EQ(first.threads, 64U);
    EXPECT_EQ(first.args_bytes, 24U);
    EXPECT_EQ(first.blocks_per_multiprocessor, 2);
    EXPECT_EQ(&library->get(test::sample_spec(), hopper), &first);
    EXPECT_EQ(&library->get(test::sample_spec(), hopper, true), &first);
    EXPECT_EQ(driver.modules_loaded, 1);
    EXPECT_EQ(library->counters().memory_hits, 2U);
    EXPECT_EQ(library->counters().compiles, 1U);
    EXPECT_TRUE(driver.attributes.empty());
}

TEST_F(Get, EveryConstantMakesAnotherKernel) {
    std::set<const gpu::LoadedKernel*> kernels;
    KernelSpec spec = test::sample_spec();
    kernels.insert(&library->get(spec, hopper));
    spec.constants[0].integer = 32;
    kernels.insert(&library->get(spec, hopper));
    spec.threads = 96;
    kernels.insert(&library->get(spec, hopper));
    spec.dynamic_shared = 100;
    kernels.insert(&library->get(spec, hopper));
    spec.min_blocks = 2;
    kernels.insert(&library->get(spec, hopper));
    EXPECT_EQ(kernels.size(), 5U);
    EXPECT_EQ(driver.modules_loaded, 5);
}

TEST_F(Get, DynamicSharedMemoryIsAskedFor) {
    KernelSpec spec = test::sample_spec();
    spec.dynamic_shared = 200 * 1024;
    EXPECT_EQ(library->get(spec, hopper).dynamic_shared, 200U * 1024);
    EXPECT_EQ(driver.attributes, (std::vector<std::pair<CUfunction_attribute, int>>{
                                     {CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 200 * 1024},
                                     {CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100}}));
}

TEST_F(Get, MoreSharedMemoryThanTheGpuHasIsUnsupportedAndLeavesNoModule) {
    KernelSpec spec = test::sample_spec();
    spec.dynamic_shared = 228 * 1024;
    for (int attempt = 0; attempt < 2; ++attempt) {
        expect_parts(message_of(ErrorCode::unsupported, [&] { (void)library->get(spec, hopper); }),
                     {"scale ROWS=64", "233472 bytes"});
        EXPECT_TRUE(driver.modules.empty());
    }
    driver.blocks_per_multiprocessor = 0;
    expect_parts(message_of(ErrorCode::unsupported, [&] { (void)library->get(test::sample_spec(), hopper); }),
                 {"no block of 64 threads"});
    EXPECT_TRUE(driver.modules.empty());
    driver.blocks_per_multiprocessor = 1;
    EXPECT_EQ(library->get(test::sample_spec(), hopper).blocks_per_multiprocessor, 1);
}

TEST_F(Get, DuringACaptureAKernelThatIsNotLoadedIsNotReady) {
    (void)library->ensure_cached(test::sample_spec(), hopper);
    expect_parts(message_of(ErrorCode::not_ready, [&] { (void)library->get(test::sample_spec(), hopper, true); }),
                 {"scale ROWS=64", "before the capture"});
    EXPECT_EQ(driver.modules_loaded, 0);
}

class GetAll : public Get {
 protected:
    /// Three kernels.
    GetAll() {
        for (int factor = 1; factor <= 3; ++factor) {
            specs.push_back(test::sample_spec());
            specs.back().constants[1].integer = factor;
        }
    }
    [[nodiscard]] std::vector<const KernelSpec*> wanted() const { return {&specs[0], &specs[1], &specs[2]}; }

    std::vector<KernelSpec> specs;
    util::ThreadPool threads{3};
};

TEST_F(GetAll, CompilesAtOnceAndLoadsInTheContextOfTheCaller) {
    // Each compile goes on when three have begun: one after the other, they would wait for ever.
    std::mutex mutex;
    std::condition_variable all_began;
    std::optional<int> began;
    bool together = true;
    NvrtcAccess access = NvrtcAccess::installed();
    access.open = [&]() -> const Nvrtc& {
        std::unique_lock lock(mutex);
        if (began) {
            ++*began;
            all_began.notify_all();
            together = all_began.wait_for(lock, std::chrono::seconds(60), [&] { return *began >= 3; }) && together;
        }
        return Nvrtc::instance();
    };
    library.emplace(*cache, log, access);
    KernelSpec other = test::sample_spec();
    other.constants[1].integer = 4;
    (void)library->get(other, hopper);  // asks for the compiler's version, too
    began = 0;
    const auto kernels = library->get_all(wanted(), hopper, threads);
    EXPECT_TRUE(together);
    EXPECT_EQ(library->counters().compiles, 4U);
    EXPECT_EQ(driver.modules_loaded, 4);
    for (std::size_t i = 0; i < specs.size(); ++i) {
        EXPECT_EQ(kernels[i], &library->get(specs[i], hopper)) << "in the order that was asked";
    }
    EXPECT_EQ(library->get_all(wanted(), hopper, threads, true), kernels);
    EXPECT_EQ(driver.modules_loaded, 4);
}

TEST_F(GetAll, FindsInTheCacheWhatIsThere) {
    (void)library->get_all(wanted(), hopper, threads);
    const auto other_cache = open_cache();
    KernelLibrary other(*other_cache, log);
    EXPECT_EQ(other.get_all(wanted(), hopper, threads).size(), 3U);
    EXPECT_EQ(other.counters().compiles, 0U);
    EXPECT_EQ(other.counters().disk_hits, 3U);
}

TEST_F(GetAll, AKernelThatIsAskedForTwiceIsCompiledOnce) {
    const auto kernels = library->get_all({&specs[0], &specs[0], &specs[1]}, hopper, threads);
    EXPECT_EQ(kernels[0], kernels[1]);
    EXPECT_EQ(library->counters().compiles, 2U);
}

TEST_F(GetAll, AnErrorOfOneIsThrownWithItsLogAndTheNextCallTriesAnew) {
    specs[1].constants[2].type = "no_such_type";
    for (int attempt = 0; attempt < 2; ++attempt) {
        expect_parts(message_of(ErrorCode::compile, [&] { (void)library->get_all(wanted(), hopper, threads); }),
                     {"scale ROWS=64 FACTOR=2", "log:", "no_such_type"});
        EXPECT_EQ(driver.modules_loaded, 0);
    }
    specs[1] = specs[0];
    EXPECT_EQ(library->get_all(wanted(), hopper, threads).size(), 3U);
}

TEST_F(GetAll, DuringACaptureNothingIsCompiled) {
    (void)library->get(specs[0], hopper);
    expect_parts(message_of(ErrorCode::not_ready, [&] { (void)library->get_all(wanted(), hopper, threads, true); }),
                 {"scale ROWS=64 FACTOR=2", "before the capture"});
    EXPECT_EQ(library->counters().compiles, 1U);
    EXPECT_EQ(driver.modules_loaded, 1);
}

TEST_F(Get, EachContextGetsItsOwn) {
    const gpu::LoadedKernel& first = library->get(test::sample_spec(), hopper);
    FakeDriver::stack().push_back(FakeDriver::other_context());
    EXPECT_NE(&library->get(test::sample_spec(), hopper), &first);
    FakeDriver::stack().pop_back();
    EXPECT_EQ(&library->get(test::sample_spec(), hopper), &first);
    EXPECT_EQ(driver.modules_loaded, 2);
    EXPECT_EQ(library->counters().compiles, 1U);
}

TEST_F(Get, WithoutAContextSaysSo) {
    FakeDriver::stack().clear();
    expect_parts(message_of(ErrorCode::cuda, [&] { (void)library->get(test::sample_spec(), hopper); }),
                 {"no current CUDA context"});
}

TEST_F(Get, ManyThreadsLoadItOnce) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] {
            FakeDriver::stack() = {FakeDriver::primary_context()};
            for (int round = 0; round < 100; ++round) {
                EXPECT_EQ(library->get(test::sample_spec(), hopper).threads, 64U);
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(driver.modules_loaded, 1);
    EXPECT_EQ(library->counters().compiles, 1U);
}

TEST_F(Get, ModulesGoWithTheLibrary) {
    (void)library->get(test::sample_spec(), hopper);
    EXPECT_EQ(driver.primary_references, 2);
    FakeDriver::stack().clear();
    library.reset();
    EXPECT_TRUE(driver.modules.empty());
    EXPECT_EQ(driver.primary_references, 1);
}

TEST_F(Get, AnEntryThatTheDriverRefusesIsCompiledAnewOnce) {
    (void)library->ensure_cached(test::sample_spec(), hopper);
    int refusals = 0;
    driver.on_load = [&](std::string_view) { return refusals++ == 0 ? CUDA_ERROR_INVALID_IMAGE : CUDA_SUCCESS; };
    EXPECT_NE(library->get(test::sample_spec(), hopper).function, nullptr);
    EXPECT_EQ(library->counters().rejected, 1U);
    EXPECT_EQ(library->counters().compiles, 2U);
    EXPECT_EQ(refusals, 2);
    ASSERT_EQ(warnings.size(), 1U);
    expect_parts(warnings[0], {"scale ROWS=64", "refused by the driver"});
    // What was put in its place is found by the next process.
    const auto next_cache = open_cache();
    KernelLibrary next(*next_cache, log);
    EXPECT_TRUE(next.ensure_cached(test::sample_spec(), hopper).found_in_cache);
}

TEST_F(Get, AKernelThatTheDriverRefusesFreshIsAnErrorAndTriedAnewLater) {
    driver.on_load = [](std::string_view) { return CUDA_ERROR_INVALID_IMAGE; };
    expect_parts(message_of(ErrorCode::cuda, [&] { (void)library->get(test::sample_spec(), hopper); }),
                 {"scale ROWS=64", "nvrtc ", "a driver for CUDA 13.0", "CUDA_ERROR_INVALID_IMAGE"});
    EXPECT_EQ(library->counters().compiles, 1U);
    driver.on_load = [](std::string_view) { return CUDA_SUCCESS; };
    EXPECT_NE(library->get(test::sample_spec(), hopper).function, nullptr);
}

TEST_F(Get, AFailureOtherThanARefusalDoesNotCompileAnew) {
    (void)library->ensure_cached(test::sample_spec(), hopper);
    driver.on_load = [](std::string_view) { return CUDA_ERROR_OUT_OF_MEMORY; };
    expect_parts(message_of(ErrorCode::cuda, [&] { (void)library->get(test::sample_spec(), hopper); }),
                 {"CUDA_ERROR_OUT_OF_MEMORY"});
    EXPECT_EQ(library->counters().compiles, 1U);
    EXPECT_EQ(library->counters().rejected, 0U);
}

}  // namespace
}  // namespace smlora::jit
