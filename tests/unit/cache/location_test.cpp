#include "cache/location.hpp"

#include "support/errors.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

namespace smlora::cache {
namespace {

using testing::ScopedVariable;

struct Environment {
    Environment(const char* dir, const char* xdg, const char* home)
        : dir_("SMLORA_CACHE_DIR", dir), xdg_("XDG_CACHE_HOME", xdg), home_("HOME", home) {}
    ScopedVariable dir_, xdg_, home_;
};

TEST(Location, NamedFolderComesFirst) {
    const Environment environment("/named", "/xdg", "/home/u");
    EXPECT_EQ(named_root(), "/named");
    EXPECT_EQ(default_root(), "/xdg/smlora") << "where it is not asked for";
}

TEST(Location, XdgFolderComesBeforeHome) {
    const Environment environment(nullptr, "/xdg", "/home/u");
    EXPECT_EQ(default_root(), "/xdg/smlora");
}

TEST(Location, HomeIsTheLastResort) {
    const Environment environment(nullptr, nullptr, "/home/u");
    EXPECT_EQ(default_root(), "/home/u/.cache/smlora");
}

TEST(Location, EmptyAndRelativeVariablesCountAsUnset) {
    const Environment environment("", "relative", "/home/u");
    EXPECT_EQ(named_root(), std::nullopt);
    EXPECT_EQ(default_root(), "/home/u/.cache/smlora");
}

TEST(Location, WithoutHomeThereIsNoFolderAtAll) {
    EXPECT_EQ((Environment(nullptr, nullptr, nullptr), default_root()), std::nullopt);
    EXPECT_EQ((Environment(nullptr, "", "."), default_root()), std::nullopt);
}

TEST(Location, LayersAreSeparatedByColons) {
    const auto layers_of = [](const char* value) {
        const ScopedVariable variable("SMLORA_CACHE_LAYERS", value);
        return default_layers();
    };
    using Paths = std::vector<std::filesystem::path>;
    EXPECT_EQ(layers_of(nullptr), Paths{});
    EXPECT_EQ(layers_of(""), Paths{});
    EXPECT_EQ(layers_of("/a"), Paths{"/a"});
    EXPECT_EQ(layers_of("/a:/b c:d"), (Paths{"/a", "/b c", "d"}));
    EXPECT_EQ(layers_of(":/a::/b:"), (Paths{"/a", "/b"}));
    EXPECT_EQ(layers_of("::"), Paths{});
}

TEST(Location, TheShippedLayerIsTheNamedOneElseTheSourceTreesUnlessSwitchedOff) {
    const auto shipped_with = [](const char* value, const std::optional<std::filesystem::path>& named) {
        const ScopedVariable variable("SMLORA_SHIPPED_CACHE", value);
        return shipped_layer(named);
    };
    EXPECT_EQ(shipped_with(nullptr, "/package/cache"), "/package/cache");
    EXPECT_EQ(shipped_with("1", "/package/cache"), "/package/cache");
    EXPECT_EQ(shipped_with(nullptr, ""), std::nullopt);
    const auto found = shipped_with(nullptr, std::nullopt);
    ASSERT_TRUE(found.has_value()) << "this test runs from the build tree";
    EXPECT_EQ(found->filename(), "cache");
    EXPECT_EQ(shipped_with("0", std::nullopt), std::nullopt);
    EXPECT_EQ(shipped_with("0", "/package/cache"), std::nullopt);
    EXPECT_EQ(test::message_of([&] { static_cast<void>(shipped_with("no", std::nullopt)); }),
              "SMLORA_SHIPPED_CACHE: expected 0 or 1, got \"no\"");
}

TEST(Location, LimitIsTwoGibibytesUnlessSet) {
    const auto limit_of = [](const char* value) {
        const ScopedVariable variable("SMLORA_CACHE_LIMIT", value);
        std::string complaint;
        return std::pair{default_limit(complaint), complaint};
    };
    const std::uint64_t two_gibibytes = 2147483648;
    EXPECT_EQ(limit_of(nullptr), std::pair(two_gibibytes, std::string()));
    EXPECT_EQ(limit_of("1000"), std::pair(std::uint64_t{1000}, std::string()));
    EXPECT_EQ(limit_of("3M"), std::pair(std::uint64_t{3145728}, std::string()));
    EXPECT_EQ(limit_of("lots"), std::pair(two_gibibytes, std::string("SMLORA_CACHE_LIMIT: expected a number of bytes, "
                                                                     "or one with the suffix K, M or G, got \"lots\"; "
                                                                     "using 2G")));
}

}  // namespace
}  // namespace smlora::cache
