// Whatever call fails while a compiler's note is added to a layer: readers find the notes that were there, or the new
// one beside them.
#include "cache/layer.hpp"
#include "fault/fault_file_system.hpp"
#include "jit/compiler_identity.hpp"
#include "jit/compiler_memo.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

namespace smlora::jit {
namespace {

using testing::Call;
using testing::FaultFileSystem;
using testing::ScratchFolder;

const CompilerNotes before{{"build-id:aa", {13, 0, 88}}};
const CompilerNotes after{{"build-id:aa", {13, 0, 88}}, {"build-id:bb", {12, 9, 41}}};

class CompilerNotesOnDisk : public ::testing::Test {
 protected:
    CompilerNotesOnDisk() {
        EXPECT_TRUE(add_compiler_note({util::real_file_system(), folder.path()}, "build-id:aa", {13, 0, 88}));
    }
    bool add(util::FileSystem& files) { return add_compiler_note({files, folder.path()}, "build-id:bb", {12, 9, 41}); }
    CompilerNotes found() { return read_compiler_notes({util::real_file_system(), folder.path()}); }

    ScratchFolder folder;
};

class CompilerNoteFaults : public CompilerNotesOnDisk, public ::testing::WithParamInterface<int> {};

TEST_P(CompilerNoteFaults, LeaveTheOldNotesOrAddTheNewOne) {
    int failures = 0;
    for (int n = 0;; ++n) {
        testing::write_file(cache::compilers_file(folder.path()), encode_compiler_notes(before));
        FaultFileSystem disk(testing::fail_call(n, GetParam()));
        const bool added = add(disk);
        const bool reached = disk.calls() > n;
        failures += added ? 0 : 1;
        // Notes that could not be read are lost: they are only there to save time.
        CompilerNotes expected = added ? after : before;
        if (added && !found().contains("build-id:aa")) expected.erase("build-id:aa");
        EXPECT_EQ(found(), expected) << "call " << n;
        EXPECT_TRUE(cache::scan({util::real_file_system(), folder.path()}).temporaries.empty()) << "call " << n;
        disk.set_fault({});
        EXPECT_TRUE(add(disk));
        EXPECT_TRUE(found().contains("build-id:bb"));
        if (!reached) break;
    }
    EXPECT_GE(failures, 4) << "opening, writing, syncing, closing and renaming matter at least";
}

INSTANTIATE_TEST_SUITE_P(Errors, CompilerNoteFaults, ::testing::Values(-ENOSPC, -EIO, -EACCES, -EROFS, -EMFILE));

TEST_F(CompilerNotesOnDisk, OfAFileThatOthersMayWriteToAreNoNotesAndAreWrittenAnew) {
    const std::filesystem::path file = cache::compilers_file(folder.path());
    std::filesystem::permissions(file, std::filesystem::perms::all);
    EXPECT_TRUE(found().empty());
    EXPECT_TRUE(CompilerIdentity({{util::real_file_system(), folder.path()}}, std::nullopt).noted().empty());
    EXPECT_TRUE(add(util::real_file_system()));
    EXPECT_EQ(found(), (CompilerNotes{{"build-id:bb", {12, 9, 41}}}));
}

TEST_F(CompilerNotesOnDisk, AnUnreadableFileIsNoNotes) {
    FaultFileSystem disk(testing::fail_every(Call::read, -EIO));
    EXPECT_TRUE(read_compiler_notes({disk, folder.path()}).empty());
    EXPECT_TRUE(CompilerIdentity({{disk, folder.path()}}, std::nullopt).noted().empty());
    disk.set_fault({});
    EXPECT_EQ(CompilerIdentity({{disk, folder.path()}}, std::nullopt).noted(),
              (std::vector{CompilerVersion{13, 0, 88}}));
}

TEST(CompilerNotes, AreReadThroughTheFilesOfTheCache) {
    const ScratchFolder folder;
    FaultFileSystem disk;
    cache::CacheOptions options;
    options.root = folder.path();
    options.layers.emplace();
    options.files = &disk;
    util::Logger log([](LogLevel, std::string_view) {});
    const cache::Cache cache(options, log);
    EXPECT_EQ(&cache.files(), &disk);
}

}  // namespace
}  // namespace smlora::jit
