#include "util/lock.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace smlora::util {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds no_patience{0};
constexpr milliseconds much_patience{600'000};

class Lock : public ::testing::Test {
 protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "smlora-test-XXXXXX").string();
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder = name;
        file = folder / "lock";
    }
    void TearDown() override { std::filesystem::remove_all(folder); }

    FileSystem& real = real_file_system();
    std::filesystem::path folder, file;
};

TEST_F(Lock, ExcludesOthersOfTheSameProcessUntilItsEnd) {
    {
        const ByteLock first(real, At(file), 5, no_patience);
        EXPECT_TRUE(first.held());
        const ByteLock second(real, At(file), 5, no_patience);
        EXPECT_FALSE(second.held());
        EXPECT_EQ(second.error(), -EAGAIN);
    }
    EXPECT_TRUE(ByteLock(real, At(file), 5, no_patience).held());
}

TEST_F(Lock, EndOfOneThatIsNotHeldFreesNothing) {
    const ByteLock first(real, At(file), 5, no_patience);
    { const ByteLock second(real, At(file), 5, no_patience); }
    EXPECT_FALSE(ByteLock(real, At(file), 5, no_patience).held());
}

TEST_F(Lock, OffsetsAreIndependentUpToTheLargestOne) {
    const std::int64_t largest = (std::int64_t{1} << 60) - 1;
    const ByteLock zero(real, At(file), 0, no_patience), one(real, At(file), 1, no_patience),
        last(real, At(file), largest, no_patience);
    EXPECT_TRUE(zero.held());
    EXPECT_TRUE(one.held());
    EXPECT_TRUE(last.held());
    EXPECT_FALSE(ByteLock(real, At(file), largest, no_patience).held());
    EXPECT_EQ(std::filesystem::file_size(file), 0u) << "bytes need not exist to be locked";
}

TEST_F(Lock, WaitsAtMostItsPatience) {
    const ByteLock first(real, At(file), 0, no_patience);
    const auto start = steady_clock::now();
    EXPECT_FALSE(ByteLock(real, At(file), 0, milliseconds(80)).held());
    const auto waited = steady_clock::now() - start;
    EXPECT_GE(waited, milliseconds(80));
    EXPECT_LT(waited, milliseconds(20'000));
}

TEST_F(Lock, ComesToTheWaiterWhenItIsFree) {
    std::optional<ByteLock> first;
    first.emplace(real, At(file), 0, no_patience);
    std::atomic<bool> freed{false};
    std::thread waiter([&] {
        const ByteLock second(real, At(file), 0, much_patience);
        EXPECT_TRUE(second.held());
        EXPECT_TRUE(freed);
    });
    std::this_thread::sleep_for(milliseconds(30));
    freed = true;
    first.reset();
    waiter.join();
}

TEST_F(Lock, OneThreadIsInsideAtATime) {
    int inside = 0;
    int visits = 0;
    std::mutex mutex;  // for the sanitizer, which does not know file locks; taken only to count
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 10; ++i) {
                const ByteLock lock(real, At(file), 0, much_patience);
                ASSERT_TRUE(lock.held());
                {
                    const std::lock_guard count(mutex);
                    EXPECT_EQ(++inside, 1);
                    ++visits;
                }
                std::this_thread::yield();
                const std::lock_guard count(mutex);
                --inside;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(visits, 40);
}

TEST_F(Lock, ThatCannotBeHadSaysWhy) {
    const ByteLock nowhere(real, At(folder / "missing" / "lock"), 0, much_patience);
    EXPECT_FALSE(nowhere.held());
    EXPECT_EQ(nowhere.error(), -ENOENT);
    std::filesystem::create_symlink("/nowhere", folder / "link");
    const OpenFile open(real, At(folder), O_RDONLY);
    EXPECT_EQ(ByteLock(real, At(open.descriptor(), "link"), 0, much_patience).error(), -ELOOP);
}

}  // namespace
}  // namespace smlora::util
