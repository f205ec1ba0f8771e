// No folder below a layer's root leads elsewhere, and none is used that somebody else may write to.
#include "cache/folder.hpp"

#include "cache/cache.hpp"
#include "fault/faulty_cache_test.hpp"
#include "jit/compiler_memo.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <iterator>
#include <thread>

namespace smlora::cache {
namespace {

namespace fs = std::filesystem;
using fs::perms;
using testing::FaultFileSystem;
using testing::sample_entry;
using testing::sample_key;

constexpr const char* gpu = "GPU";
constexpr int known = 1;  ///< the kernel, and the record, of the cache
constexpr int own_number = 2, trap_number = 3;

class Folders : public testing::FaultyCacheTest {
 protected:
    void SetUp() override { fill(root(), own_number); }

    void fill(const fs::path& folder, int number) {
        fs::remove_all(folder);
        testing::RecordingLog quiet;
        FaultFileSystem disk;  // as it syncs nothing
        CacheOptions chosen = on(disk);
        chosen.root = folder;
        Cache cache(chosen, quiet.logger);
        ASSERT_TRUE(cache.store(sample_key(known), sample_entry(number)));
        ASSERT_TRUE(cache.store_record(gpu, sample_key(known), std::to_string(number)));
        // Old enough for a hit to touch it.
        testing::set_age(entry_file(folder, sample_key(known)), std::chrono::hours(2));
    }

    /// Everything below a folder, with what a call could change of it.
    static std::vector<std::string> state_of(const fs::path& folder) {
        std::vector<std::string> state;
        for (const auto& item : fs::recursive_directory_iterator(folder)) {
            const std::string text = item.is_regular_file() ? testing::contents_of(item.path()) : "";
            state.push_back(fmt::format("{} {:o} {} {}", item.path().string(),
                                        static_cast<unsigned>(item.status().permissions()),
                                        item.last_write_time().time_since_epoch().count(), text));
        }
        std::sort(state.begin(), state.end());
        return state;
    }

    /// Every folder below the root, from the top.
    std::vector<fs::path> levels() const {
        const fs::path kernel = entry_file(root(), sample_key(known)),
                       record = record_file(root(), gpu, sample_key(known));
        return {root() / "v1", root() / "v1/kernels", kernel.parent_path(), root() / "v1/tuning", record.parent_path()};
    }
    bool is_on_the_way(const fs::path& level, const fs::path& file) const {
        return file.native().starts_with(level.native() + "/");
    }

    /// What holds of a level that `spoil` has made unfit: nothing is read or written through it, one warning names it,
    /// and it is an error of what looks after the cache. `mend` makes it fit again.
    void expect_refused(const std::function<void(const fs::path&)>& spoil, const std::string& text,
                        const std::function<void(const fs::path&)>& mend) {
        for (const fs::path& level : levels()) {
            SCOPED_TRACE(level);
            fill(root(), own_number);
            testing::RecordingLog lines;
            Cache cache(options(), lines.logger);
            ASSERT_TRUE(cache.load(sample_key(known)));
            ASSERT_EQ(records(cache), 1u);
            spoil(level);
            const bool kernels = is_on_the_way(level, entry_file(root(), sample_key(known)));
            const bool notes = is_on_the_way(level, compilers_file(root()));
            const bool all_records = is_on_the_way(level, record_file(root(), gpu, sample_key(known)));
            const auto before = testing::files_below(scratch.path());

            Cache later(options(), lines.logger);
            for (Cache* each : {&cache, &later}) {
                // One that was used before has the folder of the kernels open, and may go on to find them there.
                const bool found = each->load(sample_key(known)).has_value();
                if (each == &later || !kernels) {
                    EXPECT_EQ(found, !kernels);
                }
                EXPECT_EQ(each->contains(sample_key(known)), !kernels);
                EXPECT_EQ(records(*each), all_records ? 0u : 1u);
                EXPECT_EQ(each->store(sample_key(known), sample_entry(own_number)), !kernels);
                EXPECT_EQ(each->store_record(gpu, sample_key(known), std::to_string(own_number)), !all_records);
                int runs = 0;
                each->with_lock(sample_key(known), [&] { ++runs; });
                EXPECT_EQ(runs, 1);
                each->count_use(1, 1);
                each->write_use_counts();
            }
            EXPECT_EQ(later.rejected(), 0u);
            if (notes) {
                EXPECT_EQ(testing::files_below(scratch.path()), before) << "nothing was written through it";
                EXPECT_FALSE(jit::add_compiler_note(later.folders().front(), "build-id:aa", {13, 0, 88}));
                EXPECT_THROW(later.zero_use_counts(), Error);
                EXPECT_THROW(static_cast<void>(later.use_counts()), Error);
                EXPECT_THROW(later.require_writable(), Error);
            }
            ASSERT_EQ(lines.warnings().size(), 1u) << "one for the folder";
            for (const std::string& part : {level.string(), text}) {
                EXPECT_NE(lines.warnings()[0].find(part), std::string::npos) << lines.warnings()[0];
            }

            const std::vector<UnsoundFile> found = later.verify();
            ASSERT_EQ(found.size(), 1u);
            EXPECT_EQ(found[0].file, level);
            EXPECT_NE(found[0].why.find(text), std::string::npos) << found[0].why;
            EXPECT_FALSE(found[0].useless);
            ASSERT_EQ(later.usage().unreadable.size(), 1u);
            EXPECT_EQ(later.usage().unreadable[0].file, level);
            if (kernels) {
                EXPECT_THROW(later.clear(), Error);
            }
            if (all_records) {
                EXPECT_THROW(later.clear_records(), Error);
            }
            EXPECT_EQ(later.prune({}).problems.size(), 1u);
            const ShareReport shared = later.share(Readers::group);
            EXPECT_TRUE(std::any_of(shared.problems.begin(), shared.problems.end(),
                                    [&](const CacheProblem& problem) { return problem.file == level; }));

            mend(level);
            EXPECT_TRUE(later.store(sample_key(known), sample_entry(own_number)));
            EXPECT_TRUE(later.store_record(gpu, sample_key(known), std::to_string(own_number)));
            EXPECT_TRUE(cache.load(sample_key(known)));
            EXPECT_EQ(records(cache), 1u);
            EXPECT_TRUE(cache.verify().empty());
        }
    }

    static std::size_t records(const Cache& cache) {
        std::size_t count = 0;
        for (const StoredFile& stored : cache.record_files(gpu, sample_key(known))) {
            if (cache.read_record(stored)) ++count;
        }
        return count;
    }

    fs::path elsewhere() const { return scratch.path() / "elsewhere"; }
};

TEST_F(Folders, ThatAreLinksLeadNowhere) {
    expect_refused(
        [&](const fs::path& level) {
            fs::rename(level, elsewhere());
            fs::create_directory_symlink(elsewhere(), level);
        },
        "symbolic link; run `rm ",
        [&](const fs::path& level) {
            EXPECT_TRUE(fs::remove(level));
            fs::remove_all(elsewhere());
        });
}

TEST_F(Folders, ThatOthersMayWriteToAreRefusedWithTheMend) {
    for (const unsigned permissions : {0720u, 0702u, 0777u, 01777u}) {
        expect_refused([&](const fs::path& level) { fs::permissions(level, static_cast<perms>(permissions)); },
                       fmt::format("its permissions are {:04o}, expected no write access", permissions),
                       [&](const fs::path& level) {
                           ASSERT_EQ(std::system(fmt::format("chmod -R go-w {}", level.string()).c_str()), 0);
                       });
    }
}

TEST_F(Folders, OfSomebodyElseAreRefused) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to make a folder of another user";
    constexpr ::uid_t other = 61001;
    expect_refused([&](const fs::path& level) { ASSERT_EQ(::chown(level.c_str(), other, other), 0); },
                   "belongs to user 61001, expected user 0 or root",
                   [&](const fs::path& level) { fs::remove_all(level); });
}

TEST_F(Folders, ThatAreFilesAreRefused) {
    expect_refused(
        [&](const fs::path& level) {
            fs::remove_all(level);
            testing::write_file(level, "text");
        },
        "expected a folder, but it is a file; remove it", [&](const fs::path& level) { fs::remove(level); });
}

TEST_F(Folders, ThatOthersMayReadAreFine) {
    for (const fs::path& level : levels()) fs::permissions(level, static_cast<perms>(0755));
    Cache cache(options(), log.logger);
    EXPECT_TRUE(cache.load(sample_key(known)));
    EXPECT_TRUE(cache.store(sample_key(known), sample_entry(own_number)));
    EXPECT_EQ(records(cache), 1u);
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(Folders, TheRootMayBeReachedByLinks) {
    fs::create_directory_symlink(scratch.path(), scratch.path() / "one");
    fs::create_directory_symlink(fs::path("one") / "cache", scratch.path() / "two");
    CacheOptions chosen = options();
    chosen.root = scratch.path() / "two";
    Cache cache(chosen, log.logger);
    EXPECT_TRUE(cache.load(sample_key(known)));
    EXPECT_TRUE(cache.store(sample_key(4), sample_entry(4)));
    EXPECT_TRUE(fs::exists(entry_file(root(), sample_key(4))));
    EXPECT_TRUE(cache.verify().empty());

    // It is looked at each time: what it leads to now is open to others.
    fs::permissions(root(), static_cast<perms>(0777));
    EXPECT_FALSE(cache.store(sample_key(5), sample_entry(5)));
}

TEST_F(Folders, FilesThatAreLinksAreNotFollowed) {
    Cache cache(options(), log.logger);
    const fs::path kernel = entry_file(root(), sample_key(known)), record = record_file(root(), gpu, sample_key(known));
    for (const fs::path& file : {kernel, record}) {
        fs::rename(file, elsewhere());
        fs::create_symlink(elsewhere(), file);
        const std::vector<UnsoundFile> found = cache.verify();
        ASSERT_EQ(found.size(), 1u);
        EXPECT_EQ(found[0].why, "it is a symbolic link");
        EXPECT_FALSE(file == kernel ? cache.load(sample_key(known)).has_value() : records(cache) == 1);
        EXPECT_TRUE(cache.store(sample_key(known), sample_entry(own_number)));
        EXPECT_TRUE(cache.store_record(gpu, sample_key(known), "2"));
        EXPECT_FALSE(fs::is_symlink(file)) << "an own file takes its place";
        EXPECT_TRUE(cache.verify().empty());
    }
}

TEST_F(Folders, OfANamedLayerAreLookedAtLikeThoseOfTheWritableOne) {
    CacheOptions chosen = options();
    chosen.root = scratch.path() / "own";
    chosen.layers = {{root()}};
    for (const fs::path& level : levels()) {
        SCOPED_TRACE(level);
        testing::RecordingLog lines;
        Cache cache(chosen, lines.logger);
        fs::permissions(level, static_cast<perms>(0770));
        EXPECT_EQ(cache.load(sample_key(known)).has_value(),
                  !is_on_the_way(level, entry_file(root(), sample_key(known))));
        EXPECT_EQ(records(cache), is_on_the_way(level, record_file(root(), gpu, sample_key(known))) ? 0u : 1u);
        EXPECT_EQ(lines.warnings().size(), 1u);
        EXPECT_EQ(cache.verify().size(), 1u);
        fs::permissions(level, static_cast<perms>(0700));
        EXPECT_TRUE(cache.load(sample_key(known)));
        EXPECT_EQ(records(cache), 1u);
    }
}

TEST_F(Folders, OfTheShippedLayerAreTrustedAsFarAsItsLibrary) {
    const fs::path library = scratch.path() / "lib" / "libsmlora.so";
    testing::write_file(library, "code");
    fs::permissions(library.parent_path(), static_cast<perms>(0775));
    CacheOptions chosen = options();
    chosen.root = scratch.path() / "own";
    chosen.shipped = root();
    chosen.library = library;
    for (const fs::path& level : levels()) fs::permissions(level, static_cast<perms>(0775));
    Cache cache(chosen, log.logger);
    EXPECT_EQ(records(cache), 1u);
    EXPECT_TRUE(log.warnings().empty());
    EXPECT_FALSE(cache.load(sample_key(known))) << "kernels are judged as in every layer";
    EXPECT_EQ(log.warnings().size(), 1u);

    fs::permissions(root() / "v1/tuning", static_cast<perms>(0777));
    EXPECT_EQ(records(cache), 0u);
    EXPECT_EQ(log.warnings().size(), 2u);
}

TEST_F(Folders, ThatAreSwappedForALinkAtAnyMomentLeadNobodyElsewhere) {
    const fs::path trap = scratch.path() / "trap";
    const fs::path own = scratch.path() / "own";
    fill(own, own_number);
    fill(trap, trap_number);
    const auto before = state_of(trap);
    const auto walk = [&](const std::function<void(Cache&)>& action) {
        for (const fs::path& level : levels()) {
            const fs::path target = trap / level.lexically_relative(root());
            bool reached = true;
            for (int n = 0; reached; ++n) {
                fs::remove_all(elsewhere());
                fs::remove_all(root());
                fs::copy(own, root(), fs::copy_options::recursive);
                testing::set_age(entry_file(root(), sample_key(known)), std::chrono::hours(2));
                testing::RecordingLog lines;
                FaultFileSystem disk;
                Cache cache(on(disk), lines.logger);
                disk.set_fault([&, n](const testing::CallRecord& record) {
                    if (record.index == n) {
                        fs::rename(level, elsewhere());
                        fs::create_directory_symlink(target, level);
                    }
                    return 0;
                });
                action(cache);
                cache.finish_eviction();
                reached = disk.calls() > n;
                disk.set_fault({});
                EXPECT_EQ(state_of(trap), before) << level << ", call " << n;
            }
        }
    };
    const auto is_own = [](const std::optional<KernelEntry>& entry) {
        return !entry || entry->metadata.at("registers") == own_number;
    };
    walk([&](Cache& cache) {
        EXPECT_TRUE(is_own(cache.load(sample_key(known))));
        EXPECT_TRUE(is_own(cache.load(sample_key(known)))) << "the second time goes by the folder that stays open";
    });
    walk([&](Cache& cache) {
        static_cast<void>(cache.store(sample_key(known), sample_entry(own_number)));
        static_cast<void>(cache.store(sample_key(4), sample_entry(4)));
    });
    walk([&](Cache& cache) {
        for (const StoredFile& stored : cache.record_files(gpu, sample_key(known))) {
            const auto record = cache.read_record(stored);
            EXPECT_TRUE(!record || record->text == std::to_string(own_number));
        }
        static_cast<void>(cache.store_record(gpu, sample_key(known), std::to_string(own_number)));
    });
    walk([&](Cache& cache) {
        cache.with_lock(sample_key(known), [] {});
        cache.count_use(1, 1);
        cache.write_use_counts();
    });
    walk([&](Cache& cache) {
        std::vector<CacheProblem> problems;
        cache.clear(&problems);
        cache.clear_records(&problems);
    });
    walk([&](Cache& cache) { static_cast<void>(cache.prune({"sm_90a", std::nullopt, std::nullopt, false})); });
    walk([&](Cache& cache) { static_cast<void>(cache.share(Readers::everyone)); });
}

TEST_F(Folders, ThatStayOpenAreLookedAtAgain) {
    Cache cache(options(), log.logger);
    ASSERT_TRUE(cache.load(sample_key(known)));
    std::size_t warnings = 0;
    for (const fs::path& level : {root() / "v1/kernels", entry_file(root(), sample_key(known)).parent_path()}) {
        fs::permissions(level, static_cast<perms>(0770));
        EXPECT_FALSE(cache.load(sample_key(known)));
        EXPECT_EQ(log.warnings().size(), ++warnings);
        fs::permissions(level, static_cast<perms>(0700));
        EXPECT_TRUE(cache.load(sample_key(known)));
    }
}

TEST_F(Folders, OfACacheThatIsRemovedAndMadeAgainAreFoundAnew) {
    Cache cache(options(), log.logger);
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(cache.load(sample_key(known)));
        fs::remove_all(root());
        EXPECT_FALSE(cache.load(sample_key(known)));
        EXPECT_FALSE(cache.contains(sample_key(known)));
        if (round == 0) {
            EXPECT_TRUE(cache.store(sample_key(known), sample_entry(10)));
            EXPECT_TRUE(cache.store_record(gpu, sample_key(known), "10"));
        } else {
            fill(root(), 10 + round);  // another process
        }
        testing::expect_same(cache.load(sample_key(known)), sample_entry(10 + round));
        EXPECT_EQ(records(cache), 1u);
    }
    // It was moved away, and another process has begun a new one.
    fs::rename(root(), elsewhere());
    fill(root(), own_number);
    EXPECT_TRUE(cache.store(sample_key(4), sample_entry(4)));
    EXPECT_TRUE(fs::exists(entry_file(root(), sample_key(4))));
    testing::expect_same(cache.load(sample_key(4)), sample_entry(4));
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(Folders, AreSharedByThreadsWhileTheCacheIsRemovedAndMadeAgain) {
    Cache cache(options(), log.logger);
    std::atomic<bool> end = false;
    std::atomic<int> hits = 0;
    std::vector<std::thread> threads;
    for (int number = 0; number < 4; ++number) {
        threads.emplace_back([&] {
            while (!end) {
                const auto entry = cache.load(sample_key(known));
                if (!entry) continue;
                testing::expect_same(entry, sample_entry(own_number));
                ++hits;
            }
        });
    }
    for (int round = 0; round < 20; ++round) {
        fill(root(), own_number);
        const int before = hits;
        const auto begin = std::chrono::steady_clock::now();
        while (hits == before) {
            if (std::chrono::steady_clock::now() - begin > std::chrono::minutes(1)) break;
            std::this_thread::yield();
        }
        EXPECT_GT(hits, before) << "round " << round;
    }
    end = true;
    for (std::thread& thread : threads) thread.join();
}

TEST_F(Folders, AreClosedAgain) {
    const auto open_files = [] {
        return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
    };
    const auto before = open_files();
    {
        Cache cache(options(), log.logger);
        for (int number = 0; number < 20; ++number) {
            static_cast<void>(cache.load(sample_key(number)));
            EXPECT_TRUE(cache.store(sample_key(number), sample_entry(number)));
            EXPECT_TRUE(cache.load(sample_key(number)));
            static_cast<void>(cache.usage());
            EXPECT_LE(open_files(), before + 1) << "the folder of the kernels stays open";
        }
    }
    EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace smlora::cache
