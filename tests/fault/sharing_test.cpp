// A layer that one user publishes and another one reads: with two real users, which takes root.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "cache/location.hpp"
#include "cache/share.hpp"
#include "fault/fault_file_system.hpp"
#include "fault/process.hpp"
#include "unit/cache/fixtures.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

namespace smlora::cache {
namespace {

using std::filesystem::perms;
using testing::Process;
using testing::sample_entry;
using testing::sample_key;
using testing::ScopedVariable;

constexpr ::uid_t service = 61001;
constexpr ::uid_t reading_user = 61002;
constexpr const char* gpu = "NVIDIA_H200";

class Sharing : public testing::CacheTest {
 protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root, to act as two users";
        std::filesystem::permissions(scratch.path(), static_cast<perms>(0755));
        std::filesystem::create_directory(home());
        ASSERT_EQ(::chown(home().c_str(), service, service), 0);
        std::filesystem::permissions(home(), static_cast<perms>(0755));
    }

    std::filesystem::path home() { return scratch.path() / "service"; }
    std::filesystem::path layer() { return home() / "cache"; }

    static int as_user(::uid_t user, const std::function<int()>& body) {
        Process process([&] {
            if (::setgid(user) != 0 || ::setuid(user) != 0) return 90;
            return body();
        });
        return process.wait();
    }

    /// The service's own run: a kernel and a record, then what `readers` may read.
    void publish(std::optional<Readers> readers) {
        const auto run = [&] {
            CacheOptions chosen = options();
            chosen.root = layer();
            Cache cache(chosen, log.logger);
            if (!cache.store(sample_key(1), sample_entry(1))) return 1;
            if (!cache.store_record(gpu, sample_key(2), "{}")) return 2;
            if (readers && !cache.share(*readers).problems.empty()) return 3;
            return 0;
        };
        ASSERT_EQ(as_user(service, run), 0);
    }

    /// What the other user finds: 0 the kernel and the record, 1 neither, 2 an engine would not start; else an error.
    int found_by_reader(const std::string& trust) {
        return as_user(reading_user, [&] {
            const ScopedVariable variable("SMLORA_CACHE_TRUST", trust.c_str());
            CacheOptions chosen = options();
            chosen.root = scratch.path() / "none";
            chosen.layers = {{layer()}};
            try {
                Cache cache(chosen, log.logger);
                const bool kernel = cache.load(sample_key(1)).has_value();
                const bool record = cache.list_records().size() == 1;
                if (kernel != record) return 3;
                if (kernel && (!cache.verify().empty() || cache.list().size() != 1)) return 4;
                return kernel ? 0 : 1;
            } catch (const Error& error) {
                return error.code() == ErrorCode::io ? 2 : 5;
            }
        });
    }
};

TEST_F(Sharing, ALayerOfAServiceAccountIsReadByThoseWhoTrustIt) {
    publish(Readers::everyone);
    EXPECT_EQ(found_by_reader(""), 2);
    EXPECT_EQ(found_by_reader("7"), 2);
    EXPECT_EQ(found_by_reader(std::to_string(service)), 0);
    EXPECT_EQ(found_by_reader("7," + std::to_string(service)), 0);
    EXPECT_EQ(found_by_reader("layers"), 0);
}

TEST_F(Sharing, WhatIsNotSharedIsNotFound) {
    publish(std::nullopt);
    EXPECT_EQ(found_by_reader("layers"), 1) << "its folders are for their owner alone";
    publish(Readers::group);
    EXPECT_EQ(found_by_reader("layers"), 1) << "the reader is in another group";
}

TEST_F(Sharing, TrustIsInAUserAndInNobodyWhoMayWriteToItsFiles) {
    publish(Readers::everyone);
    ASSERT_EQ(::chown(entry_file(layer(), sample_key(1)).c_str(), 61003, 61003), 0);
    ASSERT_EQ(::chown(record_file(layer(), gpu, sample_key(2)).c_str(), 61003, 61003), 0);
    EXPECT_EQ(found_by_reader("layers"), 1) << "a third user's files in it";

    std::filesystem::permissions(layer(), static_cast<perms>(0775));
    EXPECT_EQ(found_by_reader("layers"), 2) << "a folder that its group may write to";
}

TEST_F(Sharing, OpensFoldersAndFilesAndGivesNoRightToWrite) {
    const ScopedVariable variable("SMLORA_CACHE_TRUST", nullptr);
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    ASSERT_TRUE(cache.store_record(gpu, sample_key(2), "{}"));
    const auto permissions = [&](const std::filesystem::path& path) {
        return static_cast<unsigned>(std::filesystem::status(path).permissions());
    };
    const std::filesystem::path kernel = entry_file(root(), sample_key(1));
    EXPECT_EQ(cache.share(Readers::group).changed, 8u) << "two files, and six folders from the root to theirs";
    EXPECT_EQ(permissions(kernel), 0640u);
    EXPECT_EQ(permissions(kernel.parent_path()), 0750u);
    EXPECT_EQ(permissions(root()), 0750u);
    EXPECT_EQ(cache.share(Readers::everyone).changed, 8u);
    EXPECT_EQ(permissions(record_file(root(), gpu, sample_key(2))), 0644u);
    EXPECT_EQ(permissions(root()), 0755u);
    EXPECT_EQ(cache.share(Readers::group).changed, 0u) << "nothing is taken away";
    EXPECT_EQ(permissions(root()), 0755u);
}

TEST_F(Sharing, WhatCannotBeChangedIsSaid) {
    testing::FaultFileSystem disk;
    CacheOptions chosen = options();
    chosen.files = &disk;
    Cache cache(chosen, log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    disk.set_fault(testing::fail_every(testing::Call::set_permissions, -EPERM));
    const ShareReport report = cache.share(Readers::everyone);
    EXPECT_EQ(report.changed, 0u);
    ASSERT_EQ(report.problems.size(), 5u) << "a file and the four folders from the root to it";
    for (const CacheProblem& problem : report.problems) {
        EXPECT_NE(problem.what.find("Operation not permitted"), std::string::npos) << problem.what;
    }
}

TEST_F(Sharing, AFolderAboveThatKeepsOthersOutIsNamed) {
    std::filesystem::permissions(scratch.path(), static_cast<perms>(0700));
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    const ShareReport report = cache.share(Readers::everyone);
    ASSERT_EQ(report.problems.size(), 1u);
    EXPECT_EQ(report.problems[0].file, scratch.path());
    EXPECT_NE(report.problems[0].what.find("0700"), std::string::npos);
}

TEST(CacheTrust, IsUserIdsOrTheWordLayers) {
    for (const char* bad : {"root", "12x", "-1", "1,,2", "1;2", "4294967296", "Layers", " 5", "5 "}) {
        const ScopedVariable variable("SMLORA_CACHE_TRUST", bad);
        try {
            static_cast<void>(trusted_publishers());
            ADD_FAILURE() << bad;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            EXPECT_NE(std::string(error.what()).find(std::string("got \"") + bad + "\""), std::string::npos)
                << error.what();
        }
    }
    const ScopedVariable variable("SMLORA_CACHE_TRUST", "0,4294967295,layers");
    EXPECT_EQ(trusted_publishers().users, (std::set<std::uint32_t>{0, 4294967295U}));
    EXPECT_TRUE(trusted_publishers().owners_of_layers);
}

}  // namespace
}  // namespace smlora::cache
