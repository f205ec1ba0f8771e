#include "cache/cache.hpp"

#include "fault/fault_file_system.hpp"
#include "unit/cache/fixtures.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

namespace smlora::cache {
namespace {

using testing::expect_same;
using testing::sample_entry;
using testing::sample_key;

using CacheStore = testing::CacheTest;
using CacheLayers = testing::CacheTest;
using CacheDamage = testing::CacheTest;
using CacheTouch = testing::CacheTest;

unsigned permissions_of(const std::filesystem::path& path) {
    return static_cast<unsigned>(std::filesystem::status(path).permissions());
}

TEST_F(CacheStore, EntryComesBackInThisProcessAndTheNext) {
    const KernelEntry entry = sample_entry(1);
    Cache cache(options(), log.logger);
    EXPECT_FALSE(cache.load(sample_key(1)).has_value());
    ASSERT_TRUE(cache.store(sample_key(1), entry));
    expect_same(cache.load(sample_key(1)), entry);
    expect_same(Cache(options(), log.logger).load(sample_key(1)), entry);
    EXPECT_FALSE(cache.load(sample_key(2)).has_value());
    EXPECT_EQ(cache.rejected(), 0u);
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(CacheStore, LaterEntryTakesThePlaceOfTheFormer) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(2)));
    expect_same(cache.load(sample_key(1)), sample_entry(2));
    EXPECT_EQ(cache.usage().entries, 1u);
}

TEST_F(CacheStore, EveryFileHasItsPlace) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store("ab0123456789abcdef0123456789abcd", sample_entry(1)));
    cache.with_lock("ab0123456789abcdef0123456789abcd", [] {});
    EXPECT_EQ(testing::files_below(root()),
              (std::vector<std::string>{"CACHEDIR.TAG", "v1/kernels/ab/ab0123456789abcdef0123456789abcd", "v1/lock",
                                        "v1/upkeep"}));
}

TEST_F(CacheStore, FoldersAndFilesAreForTheirOwnerOnly) {
    const ::mode_t before = ::umask(0);
    Cache cache(options(), log.logger);
    cache.with_lock(sample_key(1), [&] { EXPECT_TRUE(cache.store(sample_key(1), sample_entry(1))); });
    ::umask(before);
    EXPECT_EQ(permissions_of(root()), 0700u);
    for (const auto& item : std::filesystem::recursive_directory_iterator(root())) {
        EXPECT_EQ(permissions_of(item.path()), item.is_directory() ? 0700u : 0600u) << item.path();
    }
}

TEST_F(CacheStore, FoldersAboveTheRootAreMade) {
    CacheOptions deep = options();
    deep.root = scratch.path() / "a" / "b" / "c";
    Cache cache(deep, log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    EXPECT_EQ(permissions_of(scratch.path() / "a"), 0700u);
}

TEST_F(CacheStore, LookingMakesNoFolder) {
    Cache cache(options(), log.logger);
    EXPECT_FALSE(cache.load(sample_key(1)).has_value());
    EXPECT_TRUE(cache.list().empty());
    EXPECT_TRUE(cache.verify().empty());
    EXPECT_EQ(cache.clear(), 0u);
    EXPECT_FALSE(std::filesystem::exists(root()));
}

TEST_F(CacheStore, ANewFolderIsTaggedAsACache) {
    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(1), sample_entry(1)));
    EXPECT_TRUE(
        testing::contents_of(root() / "CACHEDIR.TAG").starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"));
}

TEST_F(CacheStore, AFolderThatTheCompilerNotesMadeIsTagged) {
    testing::write_file(root() / "v1" / "compilers", "notes");
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(1), sample_entry(1)));
    EXPECT_TRUE(std::filesystem::exists(root() / "CACHEDIR.TAG"));
}

TEST_F(CacheStore, AFolderThatHoldsOtherThingsIsNotTagged) {
    testing::write_file(root() / "thesis.tex", "text");
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    ASSERT_TRUE(Cache(options(), log.logger).store(sample_key(1), sample_entry(1)));
    EXPECT_FALSE(std::filesystem::exists(root() / "CACHEDIR.TAG"));
}

TEST_F(CacheStore, ACacheThatIsRemovedMeanwhileIsMadeAgain) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    std::filesystem::remove_all(root());
    EXPECT_FALSE(cache.load(sample_key(1)).has_value());
    int runs = 0;
    cache.with_lock(sample_key(1), [&] { ++runs; });
    EXPECT_EQ(runs, 1);
    EXPECT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    EXPECT_TRUE(cache.load(sample_key(1)).has_value());
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(CacheStore, WhatIsNoKeyIsNoPath) {
    Cache cache(options(), log.logger);
    testing::write_file(scratch.path() / "outside", encode(sample_entry(1)));
    for (const std::string key :
         {"", "ab", "../../../../outside", "AB0123456789abcdef0123456789abcd", "gb0123456789abcdef0123456789abcd",
          "ab0123456789abcdef0123456789abcd0", "../0123456789abcdef0123456789abcd"}) {
        EXPECT_FALSE(cache.load(key).has_value()) << key;
        EXPECT_FALSE(cache.store(key, sample_entry(1))) << key;
        int runs = 0;
        cache.with_lock(key, [&] { ++runs; });
        EXPECT_EQ(runs, 1) << key;
    }
    EXPECT_EQ(log.warnings().size(), 1u);
    EXPECT_FALSE(std::filesystem::exists(root()));
}

TEST_F(CacheStore, UnsoundEntriesAreNotPublished) {
    Cache cache(options(), log.logger);
    EXPECT_FALSE(cache.store(sample_key(1), {{{"kernel", "k"}}, ""}));
    EXPECT_FALSE(cache.store(sample_key(1), {{{"kernel", "k"}}, std::string(4096, 'x')}));
    EXPECT_FALSE(cache.store(sample_key(1), {nlohmann::json::array(), testing::fake_cubin(100, 'x')}));
    EXPECT_EQ(log.warnings().size(), 1u);
    EXPECT_FALSE(std::filesystem::exists(root()));
}

TEST_F(CacheStore, AnUnfitFolderThatNobodyNamedIsNoneWithOneWarning) {
    const testing::ScopedVariable dir("SMLORA_CACHE_DIR", nullptr), xdg("XDG_CACHE_HOME", scratch.path().c_str());
    const std::filesystem::path usual = scratch.path() / "smlora";
    testing::write_file(entry_file(usual, sample_key(1)), encode_for(sample_key(1), sample_entry(1)));
    std::filesystem::permissions(usual, std::filesystem::perms::all);
    const CacheOptions unnamed{.root = std::nullopt, .layers = std::vector<std::filesystem::path>(), .limit_bytes = {}};
    Cache cache(unnamed, log.logger);
    EXPECT_TRUE(cache.layers().empty());
    EXPECT_FALSE(cache.load(sample_key(1)).has_value()) << "what others may have put there";
    EXPECT_FALSE(cache.store(sample_key(2), sample_entry(2)));
    EXPECT_FALSE(cache.store_record("GPU", sample_key(2), "{}"));
    ASSERT_EQ(log.warnings().size(), 1u) << log.warnings()[1];
    EXPECT_NE(log.warnings()[0].find(usual.string()), std::string::npos) << log.warnings()[0];
    EXPECT_NE(log.warnings()[0].find("SMLORA_CACHE_DIR"), std::string::npos) << log.warnings()[0];
    try {
        cache.require_writable();
        ADD_FAILURE() << "whose purpose is to store must know";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(usual.string()), std::string::npos) << error.what();
    }

    const testing::ScopedVariable named("SMLORA_CACHE_DIR", usual.c_str());
    EXPECT_THROW(Cache(unnamed, log.logger), Error);
    std::filesystem::remove_all(usual);
    testing::write_file(usual, "a file");
    EXPECT_THROW(Cache(unnamed, log.logger), Error);
    const testing::ScopedVariable again("SMLORA_CACHE_DIR", nullptr);
    EXPECT_TRUE(Cache(unnamed, log.logger).layers().empty());
}

TEST_F(CacheStore, WithoutAFolderItIsAMissAndOneWarning) {
    const testing::ScopedVariable dir("SMLORA_CACHE_DIR", nullptr), xdg("XDG_CACHE_HOME", nullptr),
        home("HOME", nullptr);
    Cache cache({.root = std::nullopt, .layers = std::vector<std::filesystem::path>(), .limit_bytes = std::nullopt},
                log.logger);
    EXPECT_FALSE(cache.load(sample_key(1)).has_value());
    EXPECT_FALSE(cache.store(sample_key(1), sample_entry(1)));
    EXPECT_FALSE(cache.store(sample_key(2), sample_entry(2)));
    int runs = 0;
    cache.with_lock(sample_key(1), [&] { ++runs; });
    EXPECT_EQ(runs, 1);
    EXPECT_THROW(cache.require_writable(), Error);
    EXPECT_EQ(
        log.warnings(),
        std::vector<std::string>{"cache: none of SMLORA_CACHE_DIR, XDG_CACHE_HOME and HOME names a folder; kernels are "
                                 "kept in memory only, and the next process compiles them again"});
    EXPECT_TRUE(cache.layers().empty());
    EXPECT_EQ(cache.clear(), 0u);
    EXPECT_EQ(cache.usage().entries, 0u);
}

TEST_F(CacheStore, TheEnvironmentNamesRootLayersAndLimit) {
    const testing::ScopedVariable dir("SMLORA_CACHE_DIR", root().c_str());
    const std::string layer = (scratch.path() / "layer").string();
    const testing::ScopedVariable layers("SMLORA_CACHE_LAYERS", layer.c_str()), limit("SMLORA_CACHE_LIMIT", "1M");
    Cache cache({}, log.logger);
    EXPECT_EQ(cache.limit_bytes(), 1048576u);
    ASSERT_EQ(cache.layers().size(), 2u);
    EXPECT_EQ(cache.layers()[0].root, root());
    EXPECT_TRUE(cache.layers()[0].writable);
    EXPECT_EQ(cache.layers()[1].root, layer);
    EXPECT_FALSE(cache.layers()[1].writable);
    EXPECT_FALSE(cache.layers()[1].exists);
}

TEST_F(CacheStore, ALimitThatIsNoneIsWarnedOf) {
    const testing::ScopedVariable limit("SMLORA_CACHE_LIMIT", "-1");
    EXPECT_EQ(Cache(options(), log.logger).limit_bytes(), std::uint64_t{2} << 30);
    EXPECT_EQ(log.warnings().size(), 1u);
}

TEST_F(CacheStore, RelativePathsStayWhereTheyWereMeant) {
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(scratch.path());
    CacheOptions relative = options();
    relative.root = "cache/";
    Cache cache(relative, log.logger);
    std::filesystem::current_path("/");
    EXPECT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    std::filesystem::current_path(before);
    EXPECT_TRUE(std::filesystem::exists(entry_file(root(), sample_key(1))));
}

TEST_F(CacheStore, ThreadsMayDoEverythingAtOnce) {
    Cache cache(options(), log.logger);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 20; ++i) {
                const int number = (i + t) % 5;
                cache.with_lock(sample_key(number), [&] {
                    const auto loaded = cache.load(sample_key(number));
                    if (loaded) {
                        EXPECT_EQ(loaded->cubin, sample_entry(number).cubin);
                    } else {
                        EXPECT_TRUE(cache.store(sample_key(number), sample_entry(number)));
                    }
                });
                if (t == 0) {
                    EXPECT_LE(cache.list().size(), 5u);
                }
                if (t == 1) {
                    EXPECT_TRUE(cache.verify().empty());
                }
                if (t == 2 && i % 7 == 0) cache.clear();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(cache.rejected(), 0u);
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(CacheStore, ThreadsThatWantOneKeyDoTheWorkOnce) {
    Cache cache(options(), log.logger);
    std::atomic<int> compiles{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; ++t) {
        threads.emplace_back([&] {
            cache.with_lock(sample_key(1), [&] {
                if (cache.load(sample_key(1))) return;
                ++compiles;
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
                EXPECT_TRUE(cache.store(sample_key(1), sample_entry(1)));
            });
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(compiles, 1);
}

TEST_F(CacheStore, AnExceptionOfTheWorkGivesTheLockBack) {
    CacheOptions patient = options();
    patient.lock_patience = std::chrono::minutes(10);
    Cache cache(patient, log.logger);
    EXPECT_THROW(cache.with_lock(sample_key(1), [] { throw std::runtime_error("compile"); }), std::runtime_error);
    int runs = 0;
    cache.with_lock(sample_key(1), [&] { ++runs; });
    EXPECT_EQ(runs, 1);
}

class TwoLayers : public testing::CacheTest {
 protected:
    void SetUp() override {
        for (const auto& [folder, numbers] :
             {std::pair{upper(), std::vector{2, 3}}, std::pair{lower(), std::vector{3, 4}}}) {
            CacheOptions chosen = options();
            chosen.root = folder;
            Cache cache(chosen, log.logger);
            for (const int number : numbers) {
                KernelEntry entry = sample_entry(number);
                entry.metadata["layer"] = folder.filename().string();
                ASSERT_TRUE(cache.store(sample_key(number), entry));
            }
        }
    }
    [[nodiscard]] std::filesystem::path upper() const { return scratch.path() / "upper"; }
    [[nodiscard]] std::filesystem::path lower() const { return scratch.path() / "lower"; }
    [[nodiscard]] CacheOptions layered() const {
        CacheOptions chosen = options();
        chosen.layers = {{upper(), lower()}};
        return chosen;
    }
    static std::string layer_of(const std::optional<KernelEntry>& entry) {
        return entry ? entry->metadata.value("layer", "own") : "none";
    }
};

TEST_F(TwoLayers, AreConsultedInOrderAfterTheWritableOne) {
    Cache cache(layered(), log.logger);
    EXPECT_EQ(layer_of(cache.load(sample_key(1))), "none");
    EXPECT_EQ(layer_of(cache.load(sample_key(2))), "upper");
    EXPECT_EQ(layer_of(cache.load(sample_key(3))), "upper");
    EXPECT_EQ(layer_of(cache.load(sample_key(4))), "lower");
    ASSERT_TRUE(cache.store(sample_key(3), sample_entry(3)));
    EXPECT_EQ(layer_of(cache.load(sample_key(3))), "own");
}

TEST_F(TwoLayers, AreNeverWrittenTo) {
    for (const std::filesystem::path& layer : {upper(), lower()}) {
        for (const std::string& file : testing::files_below(layer))
            testing::set_age(layer / file, std::chrono::hours(5));
    }
    testing::write_file(entry_file(upper(), sample_key(2)), "damaged");
    testing::set_age(entry_file(upper(), sample_key(2)), std::chrono::hours(5));
    const auto before = testing::files_below(scratch.path());

    CacheOptions tiny = layered();
    tiny.limit_bytes = 300;
    Cache cache(tiny, log.logger);
    for (int number = 2; number < 5; ++number) static_cast<void>(cache.load(sample_key(number)));
    for (int number = 5; number < 9; ++number) ASSERT_TRUE(cache.store(sample_key(number), sample_entry(number)));
    cache.clear();
    std::filesystem::remove_all(root());

    EXPECT_EQ(testing::files_below(scratch.path()), before);
    for (const std::filesystem::path& layer : {upper(), lower()}) {
        for (const std::string& file : testing::files_below(layer)) {
            EXPECT_GE(testing::age_of(layer / file), std::chrono::hours(4)) << file;
        }
    }
}

TEST_F(TwoLayers, AnUnsoundEntryLetsTheLayerBelowThrough) {
    testing::write_file(entry_file(upper(), sample_key(3)), "damaged");
    Cache cache(layered(), log.logger);
    EXPECT_EQ(layer_of(cache.load(sample_key(3))), "lower");
    EXPECT_EQ(cache.rejected(), 1u);
}

TEST_F(TwoLayers, AFolderNamedTwiceIsOneLayer) {
    CacheOptions twice = layered();
    twice.layers = {{upper(), root(), upper().string() + "/", lower() / ".." / "upper"}};
    const auto layers = Cache(twice, log.logger).layers();
    ASSERT_EQ(layers.size(), 2u);
    EXPECT_EQ(layers[0].root, root());
    EXPECT_EQ(layers[1].root, upper());
    EXPECT_FALSE(layers[0].exists);
    EXPECT_TRUE(layers[1].exists);
}

TEST_F(TwoLayers, ServeWhereNothingCanBeWritten) {
    testing::FaultFileSystem disk(testing::read_only_disk());
    CacheOptions read_only = layered();
    read_only.files = &disk;
    Cache cache(read_only, log.logger);
    EXPECT_EQ(layer_of(cache.load(sample_key(4))), "lower");
    EXPECT_FALSE(cache.store(sample_key(5), sample_entry(5)));
    EXPECT_EQ(log.warnings().size(), 1u);
}

TEST_F(CacheDamage, ADamagedEntryIsAMissAndIsRemoved) {
    Cache cache(options(), log.logger);
    const std::filesystem::path file = entry_file(root(), sample_key(1));
    testing::write_file(file, "damaged");
    EXPECT_FALSE(cache.load(sample_key(1)).has_value());
    EXPECT_FALSE(std::filesystem::exists(file));
    EXPECT_EQ(cache.rejected(), 1u);
    EXPECT_FALSE(cache.load(sample_key(1)).has_value());
    EXPECT_EQ(cache.rejected(), 1u) << "the second time there is nothing";
    EXPECT_EQ(log.warnings(),
              std::vector<std::string>{"cache entry " + file.string() + " is not used and was removed: only 7 bytes"});
}

TEST_F(CacheDamage, ASoundEntryUnderAnotherKeyIsAMiss) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    testing::write_file(entry_file(root(), sample_key(2)), testing::contents_of(entry_file(root(), sample_key(1))));
    EXPECT_FALSE(cache.load(sample_key(2)).has_value());
    EXPECT_EQ(cache.rejected(), 1u);
    testing::write_file(entry_file(root(), sample_key(3)), encode(sample_entry(3)));
    EXPECT_FALSE(cache.load(sample_key(3)).has_value()) << "no key at all";
    EXPECT_TRUE(cache.load(sample_key(1)).has_value());
}

TEST_F(CacheDamage, AFileThatWasReplacedMeanwhileIsNotRemoved) {
    Cache writer(options(), log.logger);
    testing::FaultFileSystem disk;
    CacheOptions observed = options();
    observed.files = &disk;
    Cache reader(observed, log.logger);
    testing::write_file(entry_file(root(), sample_key(1)), "damaged");
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);

    // Another process publishes between the reading, after which the file is closed, and the removal.
    bool read = false;
    disk.set_fault([&](const testing::CallRecord& record) {
        read = read || record.call == testing::Call::read;
        if (read && record.call == testing::Call::close) {
            EXPECT_TRUE(writer.store(sample_key(1), sample_entry(1)));
        }
        return 0;
    });
    EXPECT_FALSE(reader.load(sample_key(1)).has_value());
    disk.set_fault({});
    expect_same(reader.load(sample_key(1)), sample_entry(1));
}

TEST_F(CacheTouch, AHitMarksTheEntryAsUsedOnceAnHour) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    const std::filesystem::path file = entry_file(root(), sample_key(1));

    testing::set_age(file, std::chrono::minutes(50));
    ASSERT_TRUE(cache.load(sample_key(1)).has_value());
    EXPECT_GE(testing::age_of(file), std::chrono::minutes(49));

    testing::set_age(file, std::chrono::minutes(70));
    ASSERT_TRUE(cache.load(sample_key(1)).has_value());
    EXPECT_LE(testing::age_of(file), std::chrono::minutes(1));
}

TEST_F(CacheTouch, LookingDoesNotMark) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.store(sample_key(1), sample_entry(1)));
    const std::filesystem::path file = entry_file(root(), sample_key(1));
    testing::set_age(file, std::chrono::hours(3));
    EXPECT_EQ(cache.list().size(), 1u);
    EXPECT_TRUE(cache.verify().empty());
    EXPECT_GE(testing::age_of(file), std::chrono::hours(2));
}

}  // namespace
}  // namespace smlora::cache
