// Whose library is loaded into the process.
#include "jit/library_trust.hpp"
#include "temporary_folder.hpp"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <string>

namespace smlora::jit {
namespace {

using std::filesystem::perms;
using test::TemporaryFolder;

constexpr ::uid_t stranger = 4242;

class LibraryTrust : public testing::Test {
 protected:
    [[nodiscard]] static std::string refusal(const std::filesystem::path& path, const cache::Writers& trusted = {}) {
        return refusal_of_library(path, trusted).value_or("");
    }
    static void allow(const std::filesystem::path& path, unsigned permissions) {
        std::filesystem::permissions(path, static_cast<perms>(permissions));
    }
    static void give_away(const std::filesystem::path& path) {
        ASSERT_EQ(::lchown(path.c_str(), stranger, stranger), 0);
    }

    const TemporaryFolder folder;
    const std::filesystem::path library = folder.write("toolkit/lib64/libnvrtc.so.13", "code");
    const std::filesystem::path lib64 = library.parent_path();
};

TEST_F(LibraryTrust, OnesOwnIsLoadedAlsoWhereAGroupWorksOnIt) {
    EXPECT_EQ(refusal(library), "");
    allow(lib64, 0775);
    allow(library, 0664);
    EXPECT_EQ(refusal(library), "") << "installations are made with umask 002";
}

TEST_F(LibraryTrust, WhatAnyoneMayChangeIsNot) {
    for (const std::filesystem::path& open : {library, lib64, lib64.parent_path()}) {
        allow(open, 0777);
        EXPECT_NE(refusal(library).find("run `chmod o-w " + open.string() + "`"), std::string::npos)
            << open << ": " << refusal(library);
        cache::Writers everyone;
        everyone.everyone = true;
        EXPECT_EQ(refusal(library, everyone), "") << "they may change smlora itself";
        allow(open, 0755);
    }
    EXPECT_EQ(refusal(library), "");
}

TEST_F(LibraryTrust, AllThatLinksLeadThroughIsLookedAt) {
    const auto link = folder.path() / "link.so";
    const auto second = folder.path() / "second.so";
    std::filesystem::create_symlink("toolkit/lib64/libnvrtc.so.13", link);
    std::filesystem::create_symlink(link, second);
    EXPECT_EQ(refusal(second), "");
    allow(lib64.parent_path(), 0777);
    EXPECT_NE(refusal(second).find(lib64.parent_path().string()), std::string::npos);
    const auto loop = folder.path() / "loop.so";
    std::filesystem::create_symlink(loop, loop);
    EXPECT_NE(refusal(loop), "");
    EXPECT_NE(refusal(folder.path() / "none"), "");
}

TEST_F(LibraryTrust, AStrangersIsLoadedOnlyOutOfTheStrangersOwnToolkit) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give files away";
    give_away(library);
    EXPECT_NE(refusal(library).find("it belongs to user 4242"), std::string::npos) << refusal(library);
    cache::Writers trusted;
    trusted.owners = {stranger};
    EXPECT_EQ(refusal(library, trusted), "");
    give_away(lib64);
    EXPECT_EQ(refusal(library), "") << "a module of the cluster's software account";
}

TEST_F(LibraryTrust, NobodyElseSlipsOneInThroughASharedFolder) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give files away";
    const auto shared = folder.path() / "shared";
    std::filesystem::create_directory(shared);
    allow(shared, 01777);
    std::filesystem::rename(folder.path() / "toolkit", shared / "toolkit");
    const auto moved = shared / "toolkit" / "lib64" / "libnvrtc.so.13";
    EXPECT_EQ(refusal(moved), "");
    for (const auto& path : {moved, moved.parent_path(), shared / "toolkit"}) give_away(path);
    EXPECT_NE(refusal(moved).find("user 4242"), std::string::npos) << refusal(moved);
    // A link there to a toolkit of the same stranger is no better.
    std::filesystem::rename(shared / "toolkit", folder.path() / "theirs");
    std::filesystem::create_directory_symlink(folder.path() / "theirs", shared / "toolkit");
    EXPECT_EQ(refusal(moved), "") << "one's own link chooses";
    give_away(shared / "toolkit");
    EXPECT_NE(refusal(moved).find("user 4242"), std::string::npos) << refusal(moved);
}

}  // namespace
}  // namespace smlora::jit
