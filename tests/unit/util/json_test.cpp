#include "util/json.hpp"
#include "support/sanitizer.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>

namespace smlora::util {
namespace {

using Ordered = nlohmann::ordered_json;

std::string nested(int depth) {
    const auto count = static_cast<std::size_t>(depth);
    return std::string(count, '[') + "1" + std::string(count, ']');
}

std::string array_of(std::size_t values) {
    std::string text = "[0";
    for (std::size_t i = 1; i < values; ++i) text += ",0";
    return text + "]";
}

std::string object_of(std::size_t members) {
    std::string text = "{";
    for (std::size_t i = 0; i < members; ++i) text += fmt::format("{}\"{}\":0", i == 0 ? "" : ",", i);
    return text + "}";
}

TEST(Json, IsRefusedBeyondEachLimit) {
    if (smlora::test::thread_sanitized) GTEST_SKIP() << "one thread, for minutes";
    EXPECT_FALSE(parse_json(nested(most_json_depth)).is_discarded());
    EXPECT_TRUE(parse_json(nested(most_json_depth + 1)).is_discarded());
    EXPECT_TRUE(parse_json(nested(1'000'000)).is_discarded());

    EXPECT_EQ(parse_json(array_of(most_json_values - 1)).size(), most_json_values - 1) << "with the array";
    EXPECT_TRUE(parse_json(array_of(most_json_values)).is_discarded());

    const std::string longest = "1" + std::string(most_json_bytes - 1, ' ');
    EXPECT_EQ(parse_json(longest), 1);
    EXPECT_TRUE(parse_json(longest + " ").is_discarded());
    EXPECT_TRUE(parse_json(longest + " ", true).is_discarded());
}

TEST(Json, MembersThatKeepTheirOrderAreCountedByObject) {
    EXPECT_EQ(parse_json<Ordered>(object_of(most_ordered_members)).size(), most_ordered_members);
    EXPECT_TRUE(parse_json<Ordered>(object_of(most_ordered_members + 1)).is_discarded());
    EXPECT_EQ(parse_json(object_of(most_ordered_members + 1)).size(), most_ordered_members + 1);
    const std::string many = object_of(most_ordered_members);
    EXPECT_FALSE(parse_json<Ordered>("[" + many + "," + many + ",{\"a\":" + many + ",\"b\":{}}]").is_discarded());
    EXPECT_TRUE(
        parse_json<Ordered>("{\"a\":[1,{}],\"b\":{}," + object_of(most_ordered_members - 1).substr(1)).is_discarded())
        << "objects within do not count anew";
}

TEST(Json, TakesNoTimeWhereItIsRefused) {
    if (smlora::test::sanitized) GTEST_SKIP() << "measures time";
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(parse_json<Ordered>(object_of(1'000'000)).is_discarded());
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(Json, ThatIsNoneIsAnExceptionWhereItIsWanted) {
    EXPECT_TRUE(parse_json("{").is_discarded());
    EXPECT_THROW(static_cast<void>(parse_json("{", true)), nlohmann::json::parse_error);
}

TEST(Json, IsShownInOneShortLine) {
    EXPECT_EQ(shown(nlohmann::json{{"a", "\x1b\n\xc3\xa9\x7f"}}), R"({"a":"\u001b\n\u00e9\u007f"})");
    EXPECT_EQ(shown(nlohmann::json("\xff")), R"("\ufffd")");
    EXPECT_EQ(shown(nlohmann::json(std::string(100, 'x'))), "\"" + std::string(79, 'x') + "...");
}

}  // namespace
}  // namespace smlora::util
