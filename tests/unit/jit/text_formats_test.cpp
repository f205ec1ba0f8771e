// What is read from other programs' output: ptxas's report, ELF files, notes in the cache.
#include "jit/compiler_identity.hpp"
#include "jit/compiler_memo.hpp"
#include "jit/elf.hpp"
#include "jit/nvrtc_location.hpp"
#include "jit/ptxas_report.hpp"
#include "temporary_folder.hpp"
#include "util/log.hpp"

#include <smlora/error.hpp>
#include <smlora/system.hpp>

#include <gtest/gtest.h>

#include <chrono>

namespace smlora::jit {
namespace {

using test::ScopedVariable;
using test::TemporaryFolder;

TEST(PtxasReport, HasRegistersSpillsStackSharedMemoryAndBarriers) {
    const ResourceUse use = resource_use(
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function 'smlora_f' for 'sm_90a'\n"
        "ptxas info    : Function properties for smlora_f\n"
        "ptxas         .     304 bytes stack frame, 636 bytes spill stores, 688 bytes spill loads\n"
        "ptxas info    : Used 168 registers, used 3 barriers, 304 bytes cumulative stack size, 1024 bytes smem\n"
        "ptxas info    : Compile time = 59.560 ms\n");
    EXPECT_EQ(use.registers, 168);
    EXPECT_EQ(use.spill_store_bytes, 636);
    EXPECT_EQ(use.spill_load_bytes, 688);
    EXPECT_EQ(use.spill_bytes(), 1324);
    EXPECT_EQ(use.stack_bytes, 304);
    EXPECT_EQ(use.shared_bytes, 1024);
    EXPECT_EQ(use.barriers, 3);
}

TEST(PtxasReport, OfOlderReleasesIsReadToo) {
    const ResourceUse use = resource_use(
        "ptxas info    : 304 bytes gmem\n"
        "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 40 registers, 360 bytes cmem[0]\n");
    EXPECT_EQ(use.registers, 40);
    EXPECT_EQ(use.spill_bytes(), 16);
    EXPECT_EQ(use.barriers, 0);
    EXPECT_EQ(use.shared_bytes, 0);
}

TEST(PtxasReport, SpillsOfFunctionsThatAreNotInlinedCount) {
    EXPECT_EQ(resource_use("ptxas . 8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n"
                           "ptxas . 0 bytes stack frame, 1 bytes spill stores, 2 bytes spill loads\n")
                  .spill_bytes(),
              11);
}

TEST(PtxasReport, OfAnEmptyOrStrangeLogIsZero) {
    for (const char* log : {"", "\n\n", " registers", "Used x registers", " bytes spill stores"}) {
        EXPECT_EQ(resource_use(log).registers, 0) << log;
        EXPECT_EQ(resource_use(log).spill_bytes(), 0) << log;
    }
}

TEST(PtxasReport, NotesOfSerializedWgmmaAreFound) {
    const std::string note =
        "ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions are serialized due to x";
    EXPECT_EQ(serialization_notes("a\n" + note + "\n(C7519) y\n(C7600) z\n(C7509) w\n(C7521)\n(C751) v\n(C75100)\n"),
              (std::vector<std::string>{note, "(C7519) y"}));
    EXPECT_TRUE(serialization_notes("ptxas info : Used 4 registers\n").empty());
}

TEST(CompilerMemo, ReadsWhatItWrote) {
    const CompilerNotes notes = {{"build-id:12ab", {13, 0, 88}}, {"file:00ff", {12, 4, 127}}};
    EXPECT_EQ(decode_compiler_notes(encode_compiler_notes(notes)), notes);
    EXPECT_TRUE(decode_compiler_notes("").empty());
}

TEST(CompilerMemo, AFlippedBitLosesItsLineOnly) {
    const CompilerNotes notes = {{"build-id:12ab", {13, 0, 88}}, {"file:00ff", {12, 4, 127}}};
    const std::string text = encode_compiler_notes(notes);
    for (std::size_t i = 0; i < text.size(); ++i) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string damaged = text;
            damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
            const CompilerNotes read = decode_compiler_notes(damaged);
            EXPECT_LT(read.size(), notes.size());
            for (const auto& [identity, version] : read) {
                ASSERT_TRUE(notes.contains(identity)) << damaged;
                EXPECT_EQ(notes.at(identity), version);
            }
        }
    }
}

TEST(CompilerMemo, NotesAreAddedToALayerAndReplaced) {
    util::FileSystem& files = util::real_file_system();
    const TemporaryFolder folder;
    const auto root = folder.path() / "root";
    EXPECT_TRUE(read_compiler_notes({files, root}).empty());
    EXPECT_TRUE(add_compiler_note({files, root}, "a", {13, 0, 88}));
    EXPECT_TRUE(add_compiler_note({files, root}, "b", {12, 0, 1}));
    EXPECT_TRUE(add_compiler_note({files, root}, "a", {13, 1, 2}));
    EXPECT_EQ(read_compiler_notes({files, root}), (CompilerNotes{{"a", {13, 1, 2}}, {"b", {12, 0, 1}}}));
    EXPECT_FALSE(add_compiler_note({files, "/proc/smlora"}, "a", {13, 0, 88}));
}

TEST(NvrtcLocation, AFolderGoesBeforeALaterReleaseElsewhere) {
    const TemporaryFolder folder;
    const auto old = folder.write("a/libnvrtc.so.12", "x");
    const auto recent = folder.write("b/libnvrtc.so.13", "x");
    const auto beside = folder.write("b/libnvrtc.so.12", "x");
    std::filesystem::create_directories(folder.path() / "a" / "libnvrtc.so.13");
    const std::vector<std::filesystem::path> folders = {folder.path() / "none", folder.path() / "a",
                                                        folder.path() / "b"};
    EXPECT_EQ(search_nvrtc(folders).found, (std::vector{old, recent, beside}));
    EXPECT_TRUE(search_nvrtc({folder.path() / "none"}).found.empty());
}

TEST(NvrtcLocation, EachVariableChoosesAnOlderReleaseThanTheSystems) {
    const TemporaryFolder folder;
    const auto in_lib64 = folder.write("home/lib64/libnvrtc.so.12", "x");
    const auto in_lib = folder.write("path/lib/libnvrtc.so.12", "x");
    const auto loaders = folder.write("loader/libnvrtc.so.12", "x");
    const auto named = folder.write("named/libnvrtc.so.13", "x");
    const auto first_with = [&](const char* library_path, const char* home, const char* path) {
        const auto at = [&](const char* name) { return name == nullptr ? "" : (folder.path() / name).string(); };
        const ScopedVariable loader("LD_LIBRARY_PATH", at(library_path).c_str());
        const ScopedVariable toolkit("CUDA_HOME", at(home).c_str());
        const ScopedVariable other("CUDA_PATH", at(path).c_str());
        return search_nvrtc().found.at(0);
    };
    set_nvrtc_folders({named.parent_path()});
    EXPECT_EQ(first_with(nullptr, "home", nullptr), in_lib64);
    EXPECT_EQ(first_with(nullptr, nullptr, "path"), in_lib);
    EXPECT_EQ(first_with(nullptr, "home", "path"), in_lib64);
    EXPECT_EQ(first_with("loader", "home", "path"), loaders);
    EXPECT_EQ(first_with(nullptr, nullptr, nullptr), named);
    set_nvrtc_folders({});
}

TEST(NvrtcLocation, WhatIsRefusedIsPassedOverAndSaid) {
    const TemporaryFolder folder;
    const auto open = folder.write("open/libnvrtc.so.13", "x");
    const auto fit = folder.write("fit/libnvrtc.so.12", "x");
    std::filesystem::permissions(open.parent_path(), std::filesystem::perms::all);
    const NvrtcSearch search = search_nvrtc({open.parent_path(), fit.parent_path()});
    EXPECT_EQ(search.found, std::vector{fit});
    ASSERT_EQ(search.refused.size(), 1U);
    EXPECT_EQ(search.refused[0], open.string() + " is not loaded: anyone may write to the folder " +
                                     open.parent_path().string() + " (its permissions are 0777); run `chmod o-w " +
                                     open.parent_path().string() + "`");

    // An engine's log has it.
    const ScopedVariable path("LD_LIBRARY_PATH", open.parent_path().c_str());
    std::vector<std::string> warnings;
    util::Logger log([&](LogLevel level, std::string_view line) {
        if (level == LogLevel::warning) warnings.emplace_back(line);
    });
    const NvrtcAccess access = NvrtcAccess::installed(&log);
    for (int i = 0; i < 2; ++i) {
        for (const std::filesystem::path& found : access.locate()) EXPECT_NE(found, open);
    }
    EXPECT_EQ(warnings, std::vector{"NVRTC: " + search.refused[0]});
}

TEST(NvrtcLocation, FoldersComeFromTheEnvironmentFirst) {
    const ScopedVariable path("LD_LIBRARY_PATH", "/one::relative:/two");
    const ScopedVariable home("CUDA_HOME", "/three");
    const ScopedVariable other("CUDA_PATH", nullptr);
    const auto folders = nvrtc_folders();
    ASSERT_GE(folders.size(), 6U);
    EXPECT_EQ(std::vector(folders.begin(), folders.begin() + 6),
              (std::vector<std::filesystem::path>{"/one", "/two", "/three/lib64", "/three/lib", "/usr/local/cuda/lib64",
                                                  "/usr/local/cuda/lib"}));
}

TEST(NvrtcLocation, NamedFoldersComeAfterTheEnvironmentsAndBeforeTheSystems) {
    const ScopedVariable path("LD_LIBRARY_PATH", nullptr);
    const ScopedVariable home("CUDA_HOME", "/home");
    const ScopedVariable other("CUDA_PATH", nullptr);
    set_nvrtc_folders({"/one", "/two"});
    EXPECT_THROW(set_nvrtc_folders({"/three", "relative"}), Error);
    const auto folders = nvrtc_folders();
    set_nvrtc_folders({});
    ASSERT_GE(folders.size(), 5U);
    EXPECT_EQ(
        std::vector(folders.begin(), folders.begin() + 5),
        (std::vector<std::filesystem::path>{"/home/lib64", "/home/lib", "/one", "/two", "/usr/local/cuda/lib64"}));
    EXPECT_EQ(nvrtc_folders()[2], "/usr/local/cuda/lib64");
}

TEST(NvrtcLocation, IdentityOfALibraryWithABuildIdDoesNotDependOnItsPlace) {
    const auto located = search_nvrtc().found;
    if (located.empty() || !elf_build_id(located.front())) {
        GTEST_SKIP() << "no NVRTC with a build id in the usual folders";
    }
    const TemporaryFolder folder;
    std::filesystem::create_symlink(located.front(), folder.path() / "libnvrtc.so.13");
    const auto identity = library_identity(located.front());
    ASSERT_TRUE(identity);
    EXPECT_EQ(identity->rfind("build-id:", 0), 0U);
    EXPECT_EQ(library_identity(folder.path() / "libnvrtc.so.13"), identity);
}

TEST(NvrtcLocation, IdentityOfOtherFilesChangesWithPathSizeAndTime) {
    const TemporaryFolder folder;
    const auto file = folder.write("a", "1234");
    const auto identity = library_identity(file);
    ASSERT_TRUE(identity);
    EXPECT_EQ(identity->rfind("file:", 0), 0U);
    EXPECT_EQ(library_identity(file), identity);
    EXPECT_NE(library_identity(folder.write("b", "1234")), identity);
    std::filesystem::last_write_time(file, std::filesystem::last_write_time(file) + std::chrono::seconds(1));
    const auto later = library_identity(file);
    EXPECT_NE(later, identity);
    folder.write("a", "12345");
    EXPECT_NE(library_identity(file), later);
    EXPECT_FALSE(library_identity(folder.path() / "absent"));
}

TEST(Elf, FilesThatAreNoneHaveNoBuildId) {
    const TemporaryFolder folder;
    EXPECT_FALSE(elf_build_id(folder.path() / "absent"));
    EXPECT_FALSE(elf_build_id(folder.path()));
    EXPECT_FALSE(elf_build_id(folder.write("empty", "")));
    EXPECT_FALSE(elf_build_id(folder.write("short",
                                           "\x7f"
                                           "ELF")));
    EXPECT_FALSE(elf_build_id(folder.write("text", std::string(1000, 'x'))));
}

}  // namespace
}  // namespace smlora::jit
