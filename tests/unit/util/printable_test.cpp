#include "util/printable.hpp"

#include <gtest/gtest.h>

#include <random>

namespace smlora::util {
namespace {

TEST(Printable, LeavesTextAsItIs) {
    for (const std::string text :
         {"", "E8 K64 ->", "\"C:\\new\"", "caf\xc3\xa9", "\xe6\xa8\xa1\xe5\x9e\x8b", "\xf0\x9f\x98\x80"}) {
        EXPECT_EQ(printable(text), text);
        EXPECT_TRUE(is_printable(text)) << text;
    }
}

TEST(Printable, EscapesWhatATerminalObeys) {
    const auto expect = [](const std::string& text, const std::string& escaped) {
        EXPECT_EQ(printable(text), escaped);
        EXPECT_FALSE(is_printable(text)) << escaped;
    };
    expect("\x1b]0;title\x07", "\\x1b]0;title\\x07");
    expect("a\nb\tc\rd", "a\\nb\\tc\\x0dd");
    expect(std::string("\0", 1), "\\x00");
    expect("\x7f", "\\x7f");
    expect(
        "\xc2\x9b"
        "31m",
        "\\u009b31m");
    expect(
        "\xe2\x80\xae"
        "gpj",
        "\\u202egpj");
    expect("\xe2\x80\xa8", "\\u2028");
    expect("\xe2\x81\xa6", "\\u2066");
}

TEST(Printable, EscapesWhatIsNoUtf8) {
    for (const std::string text : {"\xff", "\x80", "\xc3", "\xe6\xa8", "\xf0\x9f\x98", "\xc0\x80", "\xe0\x80\x80",
                                   "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3(", "\xf8\x88\x80\x80\x80"}) {
        EXPECT_FALSE(is_printable(text));
        const std::string escaped = printable(text);
        EXPECT_TRUE(escaped.starts_with("\\x")) << escaped;
        EXPECT_TRUE(is_printable(escaped)) << escaped;
    }
}

TEST(Printable, ChangesNothingOfItsOwnResult) {
    std::mt19937 random(7);
    for (int round = 0; round < 5000; ++round) {
        std::string text(random() % 12, '\0');
        for (char& byte : text) byte = static_cast<char>(random());
        const std::string once = printable(text);
        EXPECT_TRUE(is_printable(once));
        EXPECT_EQ(printable(once), once);
    }
}

TEST(Printable, CutsLongTextBetweenCharacters) {
    EXPECT_EQ(printable(std::string(10, 'x'), 10), std::string(10, 'x'));
    EXPECT_EQ(printable(std::string(11, 'x'), 10), std::string(10, 'x') + "..");
    EXPECT_EQ(printable("\xe6\xa8\xa1\xe5\x9e\x8b", 1), "\xe6\xa8\xa1..");
}

}  // namespace
}  // namespace smlora::util
