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
        return refusal_of_folder("/shared/kernels", status);
    };
    EXPECT_EQ(refusal(::geteuid()), std::nullopt);
    EXPECT_EQ(refusal(0), std::nullopt);
    const auto strangers = refusal(::geteuid() + 1);
    ASSERT_TRUE(strangers.has_value());
    EXPECT_NE(strangers->find("/shared/kernels: belongs to user " + std::to_string(::geteuid() + 1)),
              std::string::npos);
    EXPECT_NE(strangers->find("chown"), std::string::npos);
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
