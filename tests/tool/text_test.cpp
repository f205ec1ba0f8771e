// What people read: units, tables, colours, the progress line.
#include "smlora_tune/command.hpp"
#include "smlora_tune/help.hpp"
#include "smlora_tune/progress.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/terminal.hpp"
#include "smlora_tune/units.hpp"
#include "util/counted.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

namespace smlora::tool {
namespace {

TEST(Units, BytesStepByPowersOf1024) {
    EXPECT_EQ(bytes_text(0), "0 B");
    EXPECT_EQ(bytes_text(1023), "1023 B");
    EXPECT_EQ(bytes_text(1536), "1.5 KiB");
    EXPECT_EQ(bytes_text((1U << 20U) - 1), "1.0 MiB");
    EXPECT_EQ(bytes_text(std::uint64_t{2} << 30U), "2.0 GiB");
    EXPECT_EQ(bytes_text(std::uint64_t{5} << 50U), "5120.0 TiB");
}

TEST(Units, SecondsHaveFourDigitsWhereThatIsPossible) {
    EXPECT_EQ(seconds_text(3.2104e-6), "3.210 us");
    EXPECT_EQ(seconds_text(0.0123456), "12.35 ms");
    EXPECT_EQ(seconds_text(0.27), "270.0 ms");
    EXPECT_EQ(seconds_text(0.99996e-3), "1.000 ms");
    EXPECT_EQ(seconds_text(0.99996), "1.000 s");
    EXPECT_EQ(seconds_text(9.9999), "10.00 s");
    EXPECT_EQ(seconds_text(1234), "1234 s");
}

TEST(Units, DurationsAreRoundedUp) {
    EXPECT_EQ(duration_text(0.2), "1 s");
    EXPECT_EQ(duration_text(59.5), "1 min 00 s");
    EXPECT_EQ(duration_text(200), "3 min 20 s");
    EXPECT_EQ(duration_text(3900), "1 h 05 min");
    EXPECT_EQ(duration_text(47.9 * 3600), "47 h 54 min");
    EXPECT_EQ(duration_text(30 * 86400 + 7200), "30 d 02 h");
}

TEST(Units, OneIsNotMany) {
    EXPECT_EQ(util::counted(0, "kernel"), "0 kernels");
    EXPECT_EQ(util::counted(1U, "tuning record"), "1 tuning record");
    EXPECT_EQ(util::counted(std::int64_t{2}, "token"), "2 tokens");
}

TEST(OutOfMemory, IsAMatterOfOperandsOnlyWhereOperationsRun) {
    CLI::App app;
    DeviceOptions device;
    add_device_options(*app.add_subcommand("bench"), device);
    app.add_subcommand("import");
    app.parse("bench");
    EXPECT_EQ(out_of_memory_text(app), "out of memory: use fewer --tokens or a smaller --shape");
    app.parse("import");
    EXPECT_EQ(out_of_memory_text(app), "out of memory");
}

TEST(Units, CudaVersionsAreUnpacked) {
    EXPECT_EQ(cuda_version_text(13000), "13.0");
    EXPECT_EQ(cuda_version_text(12090), "12.9");
}

TEST(Table, ColumnsAreAsWideAsTheirWidestCell) {
    Table table({{"op"}, {"median", Align::right}, {"note"}});
    table.add({"forward", "1.5 ms", "ok"});
    table.add({"dx", "200 ms", ""});
    EXPECT_EQ(table.text(),
              "op       median  note\n"
              "forward  1.5 ms  ok\n"
              "dx       200 ms  \n");
}

TEST(Table, ColourCodesAndUtf8TakeNoMoreRoomThanTheyShow) {
    Table table({{"a", Align::right}, {"b"}});
    table.add({"\x1b[32mok\x1b[0m", "1"});
    table.add({"µs", "2"});
    EXPECT_EQ(table.text(), " a  b\n\x1b[32mok\x1b[0m  1\nµs  2\n");
}

TEST(Table, RefusesARowWithTheWrongNumberOfCells) {
    Table table({{"a"}, {"b"}});
    EXPECT_THROW(table.add({"1"}), std::logic_error);
}

TEST(Style, NeedsATerminal) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
    EXPECT_FALSE(is_terminal(file.get()));
    EXPECT_EQ(Style(file.get()).bad("wrong"), "wrong");
    EXPECT_EQ(Style(true).good("ok"), "\x1b[32mok\x1b[0m");
    EXPECT_EQ(Style(false).bold("x"), "x");
}

TEST(ProgressText, TellsRateAndTimeLeftOnceSomethingIsDone) {
    EXPECT_EQ(progress_text({0, 48, 2.0, "route E=8"}, 80), "[0/48] route E=8");
    EXPECT_EQ(progress_text({12, 48, 4.0, "route E=8"}, 80), "[12/48] 3.0/s, 12 s left, route E=8");
    EXPECT_EQ(progress_text({48, 48, 16.0, ""}, 80), "[48/48] 3.0/s");
}

TEST(ProgressText, IsCutToTheWidthOfTheTerminal) {
    const std::string text = progress_text({12, 48, 4.0, std::string(200, 'x')}, 60);
    EXPECT_EQ(text.size(), 60U);
    EXPECT_EQ(text.substr(57), "...");
}

/// A progress line on a file, and a clock that is set by hand.
class ProgressLineTest : public ::testing::Test {
 protected:
    ProgressLineTest() : file_(std::tmpfile(), std::fclose) {}

    std::unique_ptr<ProgressLine> make(bool in_place) {
        return std::make_unique<ProgressLine>(file_.get(), in_place, [this] { return now_; });
    }

    void pass(std::chrono::milliseconds time) { now_ += time; }

    std::string written() {
        std::string text(static_cast<std::size_t>(std::ftell(file_.get())), '\0');
        std::rewind(file_.get());
        EXPECT_EQ(std::fread(text.data(), 1, text.size(), file_.get()), text.size());
        return text;
    }

    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
    std::chrono::steady_clock::time_point now_{};
};

TEST_F(ProgressLineTest, IsRewrittenInPlaceAtMostTenTimesASecond) {
    const auto line = make(true);
    line->update(0, 3, "a");
    pass(std::chrono::milliseconds(50));
    line->update(1, 3, "b");  // too soon
    pass(std::chrono::milliseconds(950));
    line->update(2, 3, "c");
    line->finish();
    EXPECT_EQ(written(), "[0/3] a\r\x1b[K[2/3] 2.0/s, 1 s left, c\r\x1b[K");
}

TEST_F(ProgressLineTest, IsALineEveryFewSecondsWithoutATerminal) {
    const auto line = make(false);
    line->update(0, 3, "a");
    pass(std::chrono::seconds(4));
    line->update(1, 3, "b");
    pass(std::chrono::seconds(4));
    line->update(2, 3, "c");
    line->update(3, 3, "");
    line->finish();
    EXPECT_EQ(written(), "[2/3] 0.2/s, 4 s left, c\n");
}

TEST_F(ProgressLineTest, WhatMayTakeLongIsShownAtOnce) {
    const auto line = make(true);
    line->announce(0, 2, "a");
    line->announce(0, 2, "b");
    line->finish();
    EXPECT_EQ(written(), "[0/2] a\r\x1b[K[0/2] b\r\x1b[K");
}

TEST_F(ProgressLineTest, OtherLinesGoAboveIt) {
    const auto line = make(true);
    line->update(0, 3, "a");
    line->print("warning: b");
    line->update(1, 3, "c");
    line->finish();
    EXPECT_EQ(written(), "[0/3] a\r\x1b[Kwarning: b\n[1/3], c\r\x1b[K");
}

TEST_F(ProgressLineTest, LinesOfOtherThreadsDoNotMixWithIt) {
    constexpr int times = 20000;
    const auto line = make(true);
    std::thread other([&] {
        for (int i = 0; i < times; ++i) line->print("warning: b");
    });
    for (int i = 0; i < times; ++i) line->announce(0, 3, "a");
    other.join();
    line->finish();
    // Whatever is shown is taken off before anything else.
    const std::string shown = "[0/3] a\r\x1b[K";
    const std::string printed = "warning: b\n";
    const std::string text = written();
    std::array<int, 2> found{};
    for (std::string_view rest = text; !rest.empty();) {
        const bool is_shown = rest.starts_with(shown);
        ASSERT_TRUE(is_shown || rest.starts_with(printed)) << rest.substr(0, 40);
        ++found[is_shown ? 0 : 1];
        rest.remove_prefix(is_shown ? shown.size() : printed.size());
    }
    EXPECT_EQ(found, (std::array{times, times}));
}

}  // namespace
}  // namespace smlora::tool
