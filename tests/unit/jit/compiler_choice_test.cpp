// Which compiler the kernels of a cache are taken from, with NVRTC and without it.
#include "jit/compiler_memo.hpp"
#include "jit/kernel_compiler.hpp"
#include "jit/kernel_store.hpp"
#include "jit/nvrtc_location.hpp"
#include "with_cache.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <vector>

namespace smlora::jit {
namespace {

using namespace test;

class CompilerChoice : public WithCache {
 protected:
    void fill() {
        const auto cache = open_cache();
        LibraryCounters counters;
        KernelStore store(*cache, log, counters);
        (void)store.obtain(sample_spec(), hopper);
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
    EXPECT_TRUE(store.obtain(sample_spec(), hopper)->found);
    EXPECT_EQ(counters.disk_hits, 1U);
}

TEST_F(CompilerChoice, WithoutNvrtcAndNotesTheEntriesThemselvesTellTheCompiler) {
    fill();
    std::filesystem::remove(notes_file());
    const auto cache = open_cache();
    LibraryCounters counters;
    KernelStore store(*cache, log, counters, no_nvrtc());
    EXPECT_TRUE(store.obtain(sample_spec(), hopper)->found);
}

TEST_F(CompilerChoice, WithoutNvrtcNewerCompilersGoFirstAndOlderOnesServeToo) {
    fill();
    ASSERT_TRUE(add_compiler_note({util::real_file_system(), folder.path() / "root"}, "build-id:ff", {99, 0, 1}));
    const auto cache = open_cache();
    LibraryCounters counters;
    KernelStore store(*cache, log, counters, no_nvrtc());
    EXPECT_TRUE(store.obtain(sample_spec(), hopper)->found);
    CompilerIdentity identity({{util::real_file_system(), folder.path() / "root"}}, std::nullopt, no_nvrtc());
    EXPECT_EQ(identity.noted(), (std::vector{CompilerVersion{99, 0, 1}, Nvrtc::instance().version()}));
}

TEST_F(CompilerChoice, WithoutNvrtcAMissingKernelSaysBoth) {
    fill();
    const auto cache = open_cache();
    LibraryCounters counters;
    KernelStore store(*cache, log, counters, no_nvrtc());
    KernelSpec other = sample_spec();
    other.constants[1].integer = 4;
    expect_parts(message_of(ErrorCode::compile, [&] { (void)store.obtain(other, hopper); }),
                 {"scale ROWS=64 FACTOR=4", "sm_90a", "in no layer of the cache", "NVRTC is nowhere"});
    const auto empty = open_cache(folder.path() / "empty");
    KernelStore nothing(*empty, log, counters, no_nvrtc());
    expect_parts(message_of(ErrorCode::compile, [&] { (void)nothing.obtain(sample_spec(), hopper); }),
                 {"in no layer of the cache", "NVRTC is nowhere"});
}

TEST_F(CompilerChoice, ANoteIsBelievedWithoutOpeningTheLibrary) {
    const auto library = folder.write("libnvrtc.so.13", "no ELF file");
    const cache::Layer layer{util::real_file_system(), folder.path()};
    ASSERT_TRUE(add_compiler_note(layer, *library_identity(library), {99, 1, 2}));
    NvrtcAccess access = no_nvrtc();
    access.locate = [&] { return std::vector{library}; };
    CompilerIdentity identity({layer}, layer, access);
    EXPECT_EQ(identity.installed(), (CompilerVersion{99, 1, 2}));
    folder.write("libnvrtc.so.13", "another file");
    CompilerIdentity changed({layer}, layer, access);
    EXPECT_FALSE(changed.installed());
    EXPECT_EQ(changed.why_not(), "NVRTC is nowhere");
}

TEST_F(CompilerChoice, AWrongNoteIsCorrectedAndGivesNoWrongKernel) {
    const Nvrtc& nvrtc = Nvrtc::instance();
    const std::filesystem::path root = folder.path() / "root";
    const std::string identity = *library_identity(nvrtc.file());
    ASSERT_TRUE(add_compiler_note({util::real_file_system(), root}, identity, {99, 1, 2}));
    std::filesystem::permissions(root, std::filesystem::perms::owner_all);
    const auto cache = open_cache();
    LibraryCounters counters;
    NvrtcAccess access = NvrtcAccess::installed();
    access.locate = [&] { return std::vector{nvrtc.file()}; };
    KernelStore store(*cache, log, counters, access);
    const auto kernel = store.obtain(sample_spec(), hopper);
    EXPECT_EQ(kernel->entry.metadata["compiler"], nvrtc.version().name());
    EXPECT_EQ(kernel->key,
              cache_key(compile_request(sample_spec(), hopper, nvrtc.version(), Templates(templates.path()))));
    EXPECT_EQ(read_compiler_notes({util::real_file_system(), root}).at(identity), nvrtc.version());
    EXPECT_TRUE(store.obtain(sample_spec(), hopper)->found);
}

}  // namespace
}  // namespace smlora::jit
