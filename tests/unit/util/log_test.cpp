#include "util/log.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <thread>

namespace smlora::util {
namespace {

class LogToStderr : public ::testing::Test {
 protected:
    void TearDown() override { unsetenv("SMLORA_LOG"); }

    static std::string lines_at(const char* level) {
        if (level == nullptr) {
            unsetenv("SMLORA_LOG");
        } else {
            setenv("SMLORA_LOG", level, 1);
        }
        ::testing::internal::CaptureStderr();
        Logger log;
        log.debug("d");
        log.info("i");
        log.notice("n");
        log.warning("w");
        return ::testing::internal::GetCapturedStderr();
    }
};

TEST_F(LogToStderr, ShowsWhatTakesTimeAndWarningsUnlessAskedForMoreOrLess) {
    EXPECT_EQ(lines_at(nullptr), "smlora: notice: n\nsmlora: warning: w\n");
    EXPECT_EQ(lines_at(""), "smlora: notice: n\nsmlora: warning: w\n");
    EXPECT_EQ(lines_at("notice"), "smlora: notice: n\nsmlora: warning: w\n");
    EXPECT_EQ(lines_at("warning"), "smlora: warning: w\n");
    EXPECT_EQ(lines_at("info"), "smlora: info: i\nsmlora: notice: n\nsmlora: warning: w\n");
    EXPECT_EQ(lines_at("debug"), "smlora: debug: d\nsmlora: info: i\nsmlora: notice: n\nsmlora: warning: w\n");
}

TEST_F(LogToStderr, NamesALevelThatIsNone) {
    EXPECT_EQ(lines_at("loud"),
              "smlora: warning: SMLORA_LOG: expected debug, info, notice or warning, got \"loud\"; using notice\n"
              "smlora: notice: n\nsmlora: warning: w\n");
}

TEST(Log, SinkReceivesEveryLevel) {
    std::vector<std::pair<LogLevel, std::string>> lines;
    Logger log([&](LogLevel level, std::string_view line) { lines.emplace_back(level, line); });
    log.debug("d");
    log.info("i");
    log.notice("n");
    log.warning("w");
    EXPECT_EQ(lines,
              (std::vector<std::pair<LogLevel, std::string>>{
                  {LogLevel::debug, "d"}, {LogLevel::info, "i"}, {LogLevel::notice, "n"}, {LogLevel::warning, "w"}}));
}

TEST(Log, WarningOnceSpeaksOnceForEachTopic) {
    std::vector<std::string> lines;
    Logger log([&](LogLevel, std::string_view line) { lines.emplace_back(line); });
    log.warning_once("disk", "first");
    log.warning_once("disk", "second");
    log.warning_once("home", "third");
    EXPECT_EQ(lines, (std::vector<std::string>{"first", "third"}));
}

TEST(Log, SinkIsNeverCalledFromTwoThreadsAtOnce) {
    std::atomic<int> inside{0};
    int lines = 0;
    Logger log([&](LogLevel, std::string_view) {
        EXPECT_EQ(++inside, 1);
        ++lines;
        --inside;
    });
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 500; ++i) log.info("line");
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(lines, 2000);
}

TEST(Log, SinkThatThrowsIsNotNoticed) {
    Logger log([](LogLevel, std::string_view) { throw std::runtime_error("sink"); });
    EXPECT_NO_THROW(log.warning("w"));
    EXPECT_NO_THROW(log.warning_once("topic", "w"));
}

}  // namespace
}  // namespace smlora::util
