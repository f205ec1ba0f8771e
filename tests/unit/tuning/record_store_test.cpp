// Records in the layers of a cache, and between processes.
#include "tuning/record_store.hpp"

#include "sample_tunings.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace smlora::tuning {
namespace {

using namespace testing;
using smlora::testing::contents_of;
using smlora::testing::write_file;

/// For forward, with the sample's problem as a relative.
std::optional<NearTuning> near(RecordStore& store, const RecordName& name) {
    return store.find_near(name, {sample_name().problem}, "forward", here(), sample_space());
}

class Records : public smlora::testing::CacheTest {
 protected:
    [[nodiscard]] std::filesystem::path file(const std::filesystem::path& root, const RecordName& name) const {
        return cache::record_file(root, cache::record_folder(name.gpu), name.key());
    }
    [[nodiscard]] cache::CacheOptions layered() const {
        cache::CacheOptions chosen = options();
        chosen.layers = {scratch.path() / "layer"};
        chosen.shipped = scratch.path() / "shipped";
        return chosen;
    }
};

TEST_F(Records, LieUnderTheirGpuAndAreFoundAgain) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    EXPECT_FALSE(store.find(sample_name(), "forward", here()).has_value());
    EXPECT_TRUE(store.save(sample_name(), sample_tuning()));
    EXPECT_TRUE(store.save(sample_name(), sample_tuning("dx", 0)));
    const auto found = store.find(sample_name(), "forward", here());
    ASSERT_TRUE(found.has_value());
    expect_same(*found, sample_tuning());
    EXPECT_TRUE(store.find(sample_name(), "dx", here()).has_value());
    EXPECT_FALSE(store.find(sample_name(), "yb", here()).has_value());
    EXPECT_FALSE(store.find(sample_name(12), "forward", here()).has_value());
    EXPECT_EQ(smlora::testing::files_below(root())[2], "v1/tuning/NVIDIA_H200/" + sample_name().key() + ".json");
    EXPECT_EQ(cache.list_records().size(), 1u);
    EXPECT_EQ(cache.usage().entries, 0u) << "no kernel";
    EXPECT_EQ(cache.clear(), 0u) << "clearing kernels leaves what was measured";
    EXPECT_EQ(cache.clear_records(), 1u);
    EXPECT_FALSE(store.find(sample_name(), "forward", here()).has_value());
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(Records, OfAnotherEnvironmentAreAMissAndStayAsTheyAre) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    Tuning elsewhere = sample_tuning("forward", 0);
    elsewhere.environment.templates = "another";
    store.save(sample_name(), elsewhere);
    const std::string before = contents_of(file(root(), sample_name()));
    EXPECT_FALSE(store.find(sample_name(), "forward", here()).has_value());
    EXPECT_FALSE(near(store, sample_name(10)).has_value());
    EXPECT_EQ(contents_of(file(root(), sample_name())), before);
    // Nor does tuning here lose it.
    store.save(sample_name(), sample_tuning("forward", 1));
    EXPECT_EQ(store.find(sample_name(), "forward", elsewhere.environment)->choice, elsewhere.choice);
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, sample_tuning().choice);
}

TEST_F(Records, ComeFromTheNearestBucketIfTheirOwnIsMissing) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    store.save(sample_name(7), sample_tuning("forward", 0));
    store.save(sample_name(13), sample_tuning("forward", 1));
    EXPECT_EQ(near(store, sample_name(9))->name, sample_name(7));
    EXPECT_EQ(near(store, sample_name(10))->name, sample_name(7)) << "as near: the smaller";
    EXPECT_EQ(near(store, sample_name(11))->name, sample_name(13));
    EXPECT_EQ(near(store, sample_name(20))->tuning.choice, sample_tuning().choice);
}

TEST_F(Records, ARelativeServesFirstForTheSameBucketAndBehindTheOwnOnesForOthers) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    const auto own = [](std::uint8_t bucket) {
        return RecordName{"NVIDIA H200", sample_name().problem + " index:int64", bucket};
    };
    store.save(sample_name(11), sample_tuning("forward", 0));
    store.save(own(12), sample_tuning("forward", 1));
    store.save(sample_name(14), sample_tuning("forward", 0));
    EXPECT_EQ(near(store, own(11))->name, sample_name(11)) << "the same number of tokens";
    EXPECT_EQ(near(store, own(10))->name, sample_name(11)) << "the nearest number of tokens";
    EXPECT_EQ(near(store, own(13))->name, own(12)) << "as near: the smaller";
    EXPECT_EQ(near(store, own(15))->name, sample_name(14));
    store.save(own(14), sample_tuning("forward", 1));
    EXPECT_EQ(near(store, own(15))->name, own(14)) << "as near: the own one";
    EXPECT_EQ(near(store, sample_name(12))->name, sample_name(11)) << "a relative's own relatives are not asked";
}

TEST_F(Records, AChoiceThatIsNoLegalCandidateServesNobodyElse) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    store.save(sample_name(10), sample_tuning("forward", 0));
    store.save(sample_name(13), sample_tuning("forward", 1));
    SearchSpace space = sample_space();
    space[0].refusal = "it is too large";
    const auto found = store.find_near(sample_name(11), {sample_name().problem}, "forward", here(), space);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->name, sample_name(13)) << "the next one is asked";
    space.erase(space.begin() + 1);
    EXPECT_FALSE(store.find_near(sample_name(11), {sample_name().problem}, "forward", here(), space).has_value());
}

TEST_F(Records, LayersAreConsultedInOrderAndCompleteOnesFirst) {
    for (const auto& [folder, best, complete] :
         {std::tuple{"cache", 0, false}, std::tuple{"layer", 1, true}, std::tuple{"shipped", 0, true}}) {
        write_file(file(scratch.path() / folder, sample_name()),
                   record_text({sample_name(), {sample_tuning("forward", best, complete)}}));
    }
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    cache::Cache cache(layered(), log.logger);
    RecordStore store(cache, log.logger);
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, sample_tuning("forward", 1).choice);
    std::filesystem::remove_all(scratch.path() / "layer");
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, sample_tuning("forward", 0).choice);
    EXPECT_TRUE(store.find(sample_name(), "forward", here())->complete);
    std::filesystem::remove_all(scratch.path() / "shipped");
    EXPECT_FALSE(store.find(sample_name(), "forward", here())->complete) << "a part is better than nothing";
    // Written to the top layer alone.
    store.save(sample_name(3), sample_tuning());
    EXPECT_TRUE(std::filesystem::exists(file(root(), sample_name(3))));
}

TEST_F(Records, TheLayerThatCameWithTheLibraryIsLeftOutWithAWarningIfItIsUnfit) {
    const std::filesystem::path shipped = scratch.path() / "shipped";
    std::filesystem::create_directories(shipped);
    std::filesystem::permissions(shipped, std::filesystem::perms::owner_all | std::filesystem::perms::group_all);
    EXPECT_EQ(cache::Cache(layered(), log.logger).layers().size(), 2u);
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("chmod -R go-w " + shipped.string()), std::string::npos) << log.warnings()[0];
    EXPECT_NE(log.warnings()[0].find("SMLORA_SHIPPED_CACHE=0"), std::string::npos) << log.warnings()[0];
    std::filesystem::permissions(shipped, std::filesystem::perms::owner_all);
    EXPECT_EQ(cache::Cache(layered(), log.logger).layers().back().root, shipped);
    EXPECT_EQ(log.warnings().size(), 1u);
}

TEST_F(Records, TheLayerThatCameWithTheLibraryMayBeMissing) {
    EXPECT_EQ(cache::Cache(layered(), log.logger).layers().size(), 2u);
    EXPECT_TRUE(log.warnings().empty());
    const std::string folder = (scratch.path() / "shipped").string();
    EXPECT_NE(log.lines(LogLevel::info).back().find(folder), std::string::npos);
}

TEST_F(Records, DamagedOnesAreAMissAndGoFromTheWritableLayer) {
    cache::Cache cache(layered(), log.logger);
    RecordStore store(cache, log.logger);
    write_file(file(scratch.path() / "layer", sample_name()), "{\"format\": 1");
    store.save(sample_name(), sample_tuning());
    std::string text = contents_of(file(root(), sample_name()));
    write_file(file(root(), sample_name()), text.substr(0, text.size() / 2));
    EXPECT_FALSE(store.find(sample_name(), "forward", here()).has_value());
    EXPECT_FALSE(std::filesystem::exists(file(root(), sample_name())));
    EXPECT_TRUE(std::filesystem::exists(file(scratch.path() / "layer", sample_name()))) << "that is not ours";
    EXPECT_EQ(log.warnings().size(), 1u);
    // A sound one under another's name.
    write_file(file(root(), sample_name(5)), record_text({sample_name(), {sample_tuning()}}));
    EXPECT_FALSE(store.find(sample_name(5), "forward", here()).has_value());
    EXPECT_TRUE(store.save(sample_name(), sample_tuning()));
    EXPECT_TRUE(store.find(sample_name(), "forward", here()).has_value());
}

TEST_F(Records, ThatOthersMayWriteAreNotUsed) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    store.save(sample_name(), sample_tuning());
    std::filesystem::permissions(file(root(), sample_name()), std::filesystem::perms::all);
    EXPECT_FALSE(store.find(sample_name(), "forward", here()).has_value());
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("permissions"), std::string::npos);
}

TEST_F(Records, ACacheThatCannotBeWrittenCostsOneWarning) {
    cache::CacheOptions nowhere = options();
    write_file(scratch.path() / "file", "in the way");
    nowhere.root = scratch.path() / "file" / "below";
    cache::Cache cache(nowhere, log.logger);
    RecordStore store(cache, log.logger);
    EXPECT_FALSE(store.save(sample_name(), sample_tuning()));
    EXPECT_FALSE(store.save(sample_name(), sample_tuning()));
    int ran = 0;
    store.with_lock(sample_name(), [&] { ++ran; });
    EXPECT_EQ(ran, 1);
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("its measurements are lost"), std::string::npos) << log.warnings()[0];
}

TEST_F(Records, WhatAnotherProcessRecordsIsSeenAndWhatItRemovesIsGone) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    RecordStore other(cache, log.logger);
    for (int turn = 0; turn < 20; ++turn) {
        const Tuning tuning = sample_tuning("forward", turn % 2);
        ASSERT_TRUE(other.save(sample_name(), tuning));
        EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, tuning.choice) << turn;
    }
    // One that is old enough to be remembered, and is replaced.
    smlora::testing::set_age(file(root(), sample_name()), std::chrono::hours(1));
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, sample_tuning("forward", 1).choice);
    ASSERT_TRUE(other.save(sample_name(), sample_tuning("forward", 0)));
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, sample_tuning("forward", 0).choice);
    std::filesystem::remove(file(root(), sample_name()));
    EXPECT_FALSE(store.find(sample_name(), "forward", here()).has_value());
}

TEST_F(Records, OfManyProcessesOneTunesAndAllChooseTheSame) {
    constexpr int processes = 8;
    const std::filesystem::path tuned = scratch.path() / "tuned";
    std::vector<::pid_t> children;
    for (int i = 0; i < processes; ++i) {
        const ::pid_t pid = ::fork();
        if (pid == 0) {
            cache::CacheOptions patient = options();
            patient.lock_patience = std::chrono::seconds(60);
            cache::Cache cache(patient, log.logger);
            RecordStore store(cache, log.logger);
            store.with_lock(sample_name(), [&] {
                if (store.find(sample_name(), "forward", here())) return;
                std::ofstream(tuned, std::ios::app) << i;
                std::this_thread::sleep_for(std::chrono::milliseconds(50));
                // What another process would have measured differs: only one choice may come of it.
                store.save(sample_name(), sample_tuning("forward", i % 2));
            });
            const auto found = store.find(sample_name(), "forward", here());
            const bool same =
                found && found->choice == sample_tuning("forward", (contents_of(tuned)[0] - '0') % 2).choice;
            ::_exit(same && log.warnings().empty() ? 0 : 1);
        }
        children.push_back(pid);
    }
    for (const ::pid_t pid : children) {
        int status = 0;
        ::waitpid(pid, &status, 0);
        EXPECT_EQ(status, 0);
    }
    EXPECT_EQ(contents_of(tuned).size(), 1u) << "tuned by " << contents_of(tuned);
}

TEST_F(Records, LeftoversOfWritersThatDiedAreSwept) {
    cache::Cache cache(options(), log.logger);
    RecordStore store(cache, log.logger);
    store.save(sample_name(), sample_tuning());
    const std::filesystem::path leftover = file(root(), sample_name()).parent_path() / ".tmp-1-0123456789abcdef";
    write_file(leftover, "half");
    smlora::testing::set_age(leftover, std::chrono::hours(2));
    smlora::testing::set_age(cache::upkeep_file(root()), std::chrono::hours(2));
    EXPECT_TRUE(cache.store(smlora::testing::sample_key(1), smlora::testing::sample_entry(1)));
    EXPECT_FALSE(std::filesystem::exists(leftover));
    EXPECT_TRUE(std::filesystem::exists(file(root(), sample_name())));
}

}  // namespace
}  // namespace smlora::tuning
