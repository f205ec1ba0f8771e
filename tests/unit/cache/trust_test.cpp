#include "cache/trust.hpp"

#include "unit/cache/fixtures.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

namespace smlora::cache {
namespace {

using Kind = util::FileStatus::Kind;
using std::filesystem::perms;

class Trust : public testing::CacheTest {
 protected:
    std::string error_of(const CacheOptions& options) {
        try {
            Cache cache(options, log.logger);
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::io);
            return error.what();
        }
        return "";
    }

    std::filesystem::path folder_with(unsigned permissions) {
        const std::filesystem::path folder = scratch.path() / "folder";
        std::filesystem::create_directory(folder);
        std::filesystem::permissions(folder, static_cast<perms>(permissions));
        return folder;
    }

    CacheOptions as_root(const std::filesystem::path& folder) {
        CacheOptions chosen = options();
        chosen.root = folder;
        return chosen;
    }

    CacheOptions as_layer(const std::filesystem::path& folder) {
        CacheOptions chosen = options();
        chosen.layers = {{folder}};
        return chosen;
    }
};

TEST_F(Trust, FoldersThatOthersMayWriteToAreRefusedWithTheMend) {
    for (const unsigned permissions : {0770u, 0707u, 0777u, 0720u, 0702u, 01777u}) {
        const std::filesystem::path folder = folder_with(permissions);
        const std::string mend = "run `chmod -R go-w " + folder.string() + "`";
        EXPECT_NE(error_of(as_root(folder)).find(mend), std::string::npos) << error_of(as_root(folder));
        EXPECT_NE(error_of(as_layer(folder)).find(mend), std::string::npos) << error_of(as_layer(folder));
    }
}

TEST_F(Trust, FoldersThatOthersMayReadAreFine) {
    for (const unsigned permissions : {0700u, 0755u, 0750u, 0500u}) {
        const std::filesystem::path folder = folder_with(permissions);
        EXPECT_EQ(error_of(as_root(folder)), "");
        EXPECT_EQ(error_of(as_layer(folder)), "");
    }
}

TEST_F(Trust, TheMendMends) {
    const std::filesystem::path folder = folder_with(0777);
    ASSERT_NE(error_of(as_root(folder)), "");
    ASSERT_EQ(std::system(("chmod -R go-w " + folder.string()).c_str()), 0);
    EXPECT_EQ(error_of(as_root(folder)), "");
}

TEST_F(Trust, FoldersOfSomebodyElseAreRefused) {
    const auto refusal = [](std::uint32_t owner) {
        util::FileStatus status;
        status.kind = Kind::folder;
        status.owner = owner;
        status.permissions = 0700;
        return refusal_of_folder("/shared/kernels", status, FolderUse::writable);
    };
    EXPECT_EQ(refusal(::geteuid()), std::nullopt);
    EXPECT_EQ(refusal(0), std::nullopt);
    const auto strangers = refusal(::geteuid() + 1);
    ASSERT_TRUE(strangers.has_value());
    EXPECT_NE(strangers->find("belongs to user " + std::to_string(::geteuid() + 1)), std::string::npos);
    EXPECT_NE(strangers->find("name another folder"), std::string::npos);
    EXPECT_EQ(strangers->find("chown"), std::string::npos) << "it would make a stranger's kernels one's own";
}

TEST_F(Trust, AFileIsNoFolder) {
    const std::filesystem::path file = scratch.path() / "file";
    testing::write_file(file, "text");
    EXPECT_NE(error_of(as_root(file)).find(file.string() + ": expected a folder"), std::string::npos);
    EXPECT_NE(error_of(as_layer(file)).find(file.string() + ": expected a folder"), std::string::npos);
}

TEST_F(Trust, AnEmptyPathIsNoFolder) {
    EXPECT_NE(error_of(as_root("")), "");
    EXPECT_NE(error_of(as_layer("")), "");
}

TEST_F(Trust, FilesThatOthersMayWriteToAreMissesAndStay) {
    Cache cache(options(), log.logger);
    const std::string key = testing::sample_key(1);
    ASSERT_TRUE(cache.store(key, testing::sample_entry(1)));
    const std::filesystem::path file = entry_file(root(), key);
    std::filesystem::permissions(file, static_cast<perms>(0620));

    EXPECT_FALSE(cache.load(key).has_value());
    EXPECT_EQ(cache.rejected(), 1u);
    EXPECT_TRUE(std::filesystem::exists(file));
    ASSERT_EQ(cache.verify().size(), 1u);
    EXPECT_NE(cache.verify()[0].why.find("0620"), std::string::npos);

    EXPECT_TRUE(cache.store(key, testing::sample_entry(1))) << "an own entry takes its place";
    EXPECT_TRUE(cache.load(key).has_value());
}

TEST_F(Trust, FilesOfSomebodyElseAreRefused) {
    util::FileStatus status;
    status.kind = Kind::regular;
    status.permissions = 0600;
    status.owner = ::geteuid() + 1;
    EXPECT_NE(refusal_of_file(status), std::nullopt);
    status.owner = 0;
    EXPECT_EQ(refusal_of_file(status), std::nullopt);
}

TEST_F(Trust, WhatTheLibraryLetsOthersWriteItsRecordsMayToo) {
    const auto status_with = [](std::uint32_t owner, std::uint32_t group, unsigned permissions) {
        util::FileStatus status;
        status.kind = Kind::folder;
        status.owner = owner;
        status.group = group;
        status.permissions = permissions;
        return status;
    };
    const std::uint32_t me = ::geteuid();
    const std::uint32_t other = me + 1;
    const auto is_fit = [](const Writers& trusted, const util::FileStatus& status) {
        const bool fit = !refusal_of_folder("/layer", status, FolderUse::layer, trusted).has_value();
        EXPECT_EQ(!refusal_of_file(status, trusted).has_value(), fit);
        return fit;
    };
    const Writers closed = writers_of(status_with(me, 5, 0755), {status_with(me, 5, 0755)});
    EXPECT_FALSE(is_fit(closed, status_with(me, 5, 0775)));
    EXPECT_FALSE(is_fit(closed, status_with(other, 5, 0755)));

    const Writers in_group_folder = writers_of(status_with(me, 5, 0755), {status_with(me, 5, 0775)});
    EXPECT_TRUE(is_fit(in_group_folder, status_with(me, 5, 0775)));
    EXPECT_FALSE(is_fit(in_group_folder, status_with(me, 6, 0775))) << "another group";
    EXPECT_FALSE(is_fit(in_group_folder, status_with(me, 5, 0777)));
    EXPECT_FALSE(is_fit(in_group_folder, status_with(other, 5, 0775)));

    const Writers anothers = writers_of(status_with(other, 5, 0755), {status_with(0, 0, 0755)});
    EXPECT_TRUE(is_fit(anothers, status_with(other, 5, 0755)));
    EXPECT_FALSE(is_fit(anothers, status_with(other + 1, 5, 0755)));

    const Writers open = writers_of(status_with(me, 5, 0777), {status_with(me, 5, 0755)});
    EXPECT_TRUE(is_fit(open, status_with(me, 6, 0777)));
    const Writers far_above = writers_of(status_with(me, 5, 0755), {status_with(me, 5, 0755), status_with(0, 0, 0777)});
    EXPECT_TRUE(is_fit(far_above, status_with(me, 6, 0777))) << "anyone may put another folder in its place";
    const Writers sticky = writers_of(status_with(me, 5, 0755), {status_with(me, 5, 01777)});
    EXPECT_FALSE(is_fit(sticky, status_with(me, 5, 0777))) << "nobody else replaces a file there";
}

TEST_F(Trust, ShippedRecordsAreUsedAsFarAsTheirLibraryIsTrusted) {
    const std::string key = testing::sample_key(1);
    const std::filesystem::path shipped = scratch.path() / "share";
    const std::filesystem::path library = scratch.path() / "lib" / "libsmlora.so";
    testing::write_file(library, "code");
    testing::write_file(record_file(shipped, "GPU", key), "{}");
    testing::write_file(entry_file(shipped, key), encode_for(key, testing::sample_entry(1)));
    for (const std::filesystem::path& open : {shipped, record_file(shipped, "GPU", key), entry_file(shipped, key)}) {
        std::filesystem::permissions(open, static_cast<perms>(0775));
    }
    CacheOptions chosen = options();
    chosen.shipped = shipped;
    chosen.library = library;

    std::filesystem::permissions(library.parent_path(), static_cast<perms>(0755));
    EXPECT_EQ(Cache(chosen, log.logger).layers().size(), 1u);
    ASSERT_EQ(log.warnings().size(), 1u);
    for (const std::string& part : {shipped.string(), std::string("0775"), "chmod -R go-w " + shipped.string()}) {
        EXPECT_NE(log.warnings()[0].find(part), std::string::npos) << log.warnings()[0];
    }

    // As `cmake --install` with umask 002 makes it.
    std::filesystem::permissions(library.parent_path(), static_cast<perms>(0775));
    Cache cache(chosen, log.logger);
    EXPECT_EQ(cache.layers().size(), 2u);
    EXPECT_EQ(cache.list_records().size(), 1u);
    ASSERT_EQ(cache.verify().size(), 1u) << "a kernel is judged as in every layer";
    EXPECT_EQ(cache.verify()[0].file, entry_file(shipped, key));
    EXPECT_FALSE(cache.load(key).has_value());

    // The same folder as a named layer.
    CacheOptions named = as_layer(shipped);
    named.library = library;
    EXPECT_NE(error_of(named).find("0775"), std::string::npos);
}

TEST_F(Trust, ARootThatSomebodyMadeSinceIsRefusedBeforeTheFirstStore) {
    Cache cache(options(), log.logger);
    std::filesystem::create_directory(root());
    std::filesystem::permissions(root(), static_cast<perms>(0777));
    EXPECT_FALSE(cache.store(testing::sample_key(1), testing::sample_entry(1)));
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("chmod -R go-w"), std::string::npos);
    EXPECT_TRUE(testing::files_below(root()).empty());
}

}  // namespace
}  // namespace smlora::cache
