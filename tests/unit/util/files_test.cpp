#include "util/files.hpp"

#include "fault/fault_file_system.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>

namespace smlora::util {
namespace {

using testing::Call;
using testing::FaultFileSystem;

class Files : public ::testing::Test {
 protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "smlora-test-XXXXXX").string();
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder = name;
    }
    void TearDown() override { std::filesystem::remove_all(folder); }

    std::string read(const std::filesystem::path& path) {
        std::string bytes;
        FileStatus status;
        EXPECT_EQ(read_file(real, At(path), 1 << 20, bytes, status), 0) << path;
        return bytes;
    }
    std::vector<std::string> names() {
        std::vector<std::string> found;
        EXPECT_EQ(real.list(At(folder), found), 0);
        std::sort(found.begin(), found.end());
        return found;
    }

    FileSystem& real = real_file_system();
    std::filesystem::path folder;
};

TEST_F(Files, PublishedBytesAreReadBack) {
    for (const std::string& bytes : {std::string(), std::string("text"), std::string(3'000, '\0')}) {
        ASSERT_EQ(publish_file(real, At(folder / "a"), bytes), 0);
        EXPECT_EQ(read(folder / "a"), bytes);
        EXPECT_EQ(names(), std::vector<std::string>{"a"});
    }
}

TEST_F(Files, PublishedFilesAreForTheirOwnerOnly) {
    const ::mode_t before = ::umask(0);
    ASSERT_EQ(publish_file(real, At(folder / "a"), "text"), 0);
    ::umask(before);
    FileStatus status;
    ASSERT_EQ(real.status(At(folder / "a"), status), 0);
    EXPECT_EQ(status.permissions, 0600u);
    EXPECT_EQ(status.owner, ::geteuid());
    EXPECT_EQ(status.size, 4u);
    EXPECT_EQ(status.kind, FileStatus::Kind::regular);
}

TEST_F(Files, APublishedFileTakesThePlaceOfALinkNotOfItsTarget) {
    ASSERT_EQ(publish_file(real, At(folder / "target"), "old"), 0);
    std::filesystem::create_symlink(folder / "target", folder / "link");
    ASSERT_EQ(publish_file(real, At(folder / "link"), "new"), 0);
    EXPECT_EQ(read(folder / "target"), "old");
    EXPECT_EQ(read(folder / "link"), "new");
}

TEST_F(Files, AFailedPublicationLeavesTheOldFileAlone) {
    ASSERT_EQ(publish_file(real, At(folder / "a"), "old"), 0);
    for (const Call call : {Call::open, Call::write, Call::sync, Call::close, Call::rename}) {
        FaultFileSystem disk(testing::fail_every(call, -ENOSPC));
        EXPECT_EQ(publish_file(disk, At(folder / "a"), "new"), -ENOSPC);
        EXPECT_EQ(read(folder / "a"), "old");
        EXPECT_EQ(names(), std::vector<std::string>{"a"});
    }
}

TEST_F(Files, PublishingIntoAMissingFolderSaysSo) {
    EXPECT_EQ(publish_file(real, At(folder / "missing" / "a"), "text"), -ENOENT);
}

TEST_F(Files, OnlyRegularFilesWithinTheLimitAreRead) {
    std::string bytes = "before";
    FileStatus status;
    EXPECT_EQ(read_file(real, At(folder / "missing"), 10, bytes, status), -ENOENT);
    EXPECT_EQ(bytes, "");
    EXPECT_EQ(read_file(real, At(folder), 10, bytes, status), -EINVAL);
    EXPECT_EQ(status.kind, FileStatus::Kind::folder);
    ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
    EXPECT_EQ(read_file(real, At(folder / "fifo"), 10, bytes, status), -EINVAL) << "and it does not wait for a writer";

    ASSERT_EQ(publish_file(real, At(folder / "ten"), "0123456789"), 0);
    EXPECT_EQ(read_file(real, At(folder / "ten"), 10, bytes, status), 0);
    EXPECT_EQ(bytes, "0123456789");
    EXPECT_EQ(read_file(real, At(folder / "ten"), 9, bytes, status), -EFBIG);
    EXPECT_EQ(status.size, 10u);
}

TEST_F(Files, FoldersAreMadeWithAllAboveThem) {
    const ::mode_t before = ::umask(0);
    EXPECT_EQ(make_folders(real, folder / "a" / "b" / "c"), 0);
    ::umask(before);
    for (const char* made : {"a", "a/b", "a/b/c"}) {
        FileStatus status;
        ASSERT_EQ(real.status(At(folder / made), status), 0);
        EXPECT_EQ(status.permissions, 0700u);
    }
    EXPECT_EQ(make_folders(real, folder / "a" / "b" / "c"), 0);
    EXPECT_EQ(make_folders(real, "/"), 0);
}

TEST_F(Files, AFileInThePlaceOfAFolderIsAnError) {
    ASSERT_EQ(publish_file(real, At(folder / "file"), "text"), 0);
    EXPECT_EQ(make_folders(real, folder / "file"), -ENOTDIR);
    EXPECT_EQ(make_folders(real, folder / "file" / "below"), -ENOTDIR);
}

TEST_F(Files, TouchingChangesTheTimeOfModificationOnly) {
    ASSERT_EQ(publish_file(real, At(folder / "a"), "text"), 0);
    std::filesystem::last_write_time(folder / "a",
                                     std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
    FileStatus before, after;
    ASSERT_EQ(real.status(At(folder / "a"), before), 0);
    ASSERT_EQ(real.touch(At(folder / "a")), 0);
    ASSERT_EQ(real.status(At(folder / "a"), after), 0);
    EXPECT_GT(after.modified, before.modified + std::int64_t{7'000} * 1'000'000'000);
    EXPECT_FALSE(after.same_file(before));
    after.modified = before.modified;
    EXPECT_TRUE(after.same_file(before));
    EXPECT_EQ(real.touch(At(folder / "missing")), -ENOENT);
}

TEST_F(Files, ANameInAnOpenFolderIsOfThatFolderAndNoLinkIsFollowed) {
    std::filesystem::create_directory(folder / "in");
    const OpenFile open(real, At(folder / "in"), O_PATH | O_DIRECTORY);
    ASSERT_EQ(open.error(), 0);
    const auto at = [&](const char* name) { return At(open.descriptor(), name); };
    // The descriptor stays with the folder that was opened.
    std::filesystem::rename(folder / "in", folder / "moved");
    std::filesystem::create_directory(folder / "in");
    ASSERT_EQ(publish_file(real, at("file"), "text"), 0);
    EXPECT_EQ(read(folder / "moved" / "file"), "text");
    EXPECT_TRUE(std::filesystem::is_empty(folder / "in"));

    std::filesystem::create_symlink("file", folder / "moved" / "link");
    std::filesystem::last_write_time(folder / "moved" / "file",
                                     std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
    FileStatus before, status;
    ASSERT_EQ(real.status(at("file"), before), 0);
    ASSERT_EQ(real.status(at("link"), status), 0);
    EXPECT_EQ(status.kind, FileStatus::Kind::link);
    std::string bytes;
    EXPECT_EQ(read_file(real, at("link"), 10, bytes, status), -EINVAL);
    EXPECT_EQ(status.kind, FileStatus::Kind::link);
    EXPECT_EQ(real.open(at("link"), O_WRONLY, 0), -ELOOP);
    ASSERT_EQ(real.touch(at("link")), 0);
    ASSERT_EQ(real.status(at("file"), status), 0);
    EXPECT_EQ(status.modified, before.modified);

    std::vector<std::string> found;
    ASSERT_EQ(real.list(at("."), found), 0);
    EXPECT_EQ(found.size(), 2u);
    EXPECT_EQ(real.remove(at("link")), 0);
    EXPECT_EQ(real.make_folder(at("below"), 0700), 0);
    EXPECT_EQ(real.rename(at("file"), at("other")), 0);
    EXPECT_EQ(read(folder / "moved" / "other"), "text");
}

TEST_F(Files, WithoutAFolderEveryCallAnswersWithItsError) {
    for (const int error : {-EPERM, -ENETDOWN}) {  // the second is the number that stands for the working folder
        const At nowhere(error, "tmp");
        const At nothing(-EIO, "tmp");
        const int expected = error == -ENETDOWN ? -EIO : error;
        FileStatus status;
        std::vector<std::string> found;
        EXPECT_EQ(real.open(nowhere, O_RDONLY, 0), expected);
        EXPECT_EQ(real.status(nowhere, status), expected);
        EXPECT_EQ(real.rename(nowhere, nothing), expected);
        EXPECT_EQ(real.rename(At(folder), nowhere), expected);
        EXPECT_EQ(real.remove(nowhere), expected);
        EXPECT_EQ(real.make_folder(nowhere, 0700), expected);
        EXPECT_EQ(real.touch(nowhere), expected);
        EXPECT_EQ(real.list(nowhere, found), expected);
        EXPECT_EQ(publish_file(real, nowhere, "text"), expected);
    }
}

TEST_F(Files, ALimitOfFileSizesIsAnErrorAndNoSignal) {
    const auto beyond_the_limit = [&] {
        const ::pid_t child = ::fork();
        if (child == 0) {
            static volatile std::sig_atomic_t raised = 0;
            std::signal(SIGXFSZ, [](int) { raised = 1; });
            const struct ::rlimit limit { 8192, 8192 };
            ::setrlimit(RLIMIT_FSIZE, &limit);
            const bool full = publish_file(real, At(folder / "a"), std::string(100'000, 'x')) == -EFBIG;
            const bool fits = publish_file(real, At(folder / "b"), std::string(8192, 'x')) == 0;
            ::sigset_t mask;
            ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
            const bool unchanged = sigismember(&mask, SIGXFSZ) == 0 && raised == 0;
            ::sigset_t pending;
            ::sigpending(&pending);
            std::signal(SIGXFSZ, SIG_DFL);
            ::_exit(full && fits && unchanged && sigismember(&pending, SIGXFSZ) == 0 ? 0 : 1);
        }
        int status = 0;
        EXPECT_EQ(::waitpid(child, &status, 0), child);
        return status;
    };
    EXPECT_EQ(beyond_the_limit(), 0);
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
    EXPECT_EQ(std::filesystem::file_size(folder / "b"), 8192u);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1) << "no leftover";
}

TEST_F(Files, ErrorsAreDescribedInWords) { EXPECT_EQ(describe_error(-ENOSPC), "No space left on device"); }

}  // namespace
}  // namespace smlora::util
