#include "util/hash.hpp"

#include <gtest/gtest.h>

#include <string>

namespace smlora::util {
namespace {

// XXH3-128 of the empty text with seed 0, as the xxHash specification gives it.
TEST(Hash, EmptyTextHasTheValueOfTheSpecification) { EXPECT_EQ(xxh128_hex(""), "99aa06d3014798d86001c324468d497f"); }

// Computed by another binding of the library. A cache on disk depends on these values: they must never change.
TEST(Hash, ValuesAreThoseThatCachesWereWrittenWith) {
    EXPECT_EQ(xxh128_hex("smlora"), "9989bf5daa549920be9b6654ce987414");
    std::string thousand;
    for (int i = 0; i < 1000; ++i) thousand += static_cast<char>(i % 251);
    EXPECT_EQ(xxh128_hex(thousand), "18bf41bc8229e27733ef703fb2b20ed1");
    EXPECT_EQ(FieldHasher().hex(), "99aa06d3014798d86001c324468d497f");
    EXPECT_EQ(FieldHasher().add("arch", "sm_90a").add("option", "-std=c++17").hex(),
              "976923c0877e6fd011d21e45744fed98");
}

TEST(Hash, HexAndBytesAreTheSameValue) {
    const std::string bytes = xxh128_bytes("smlora");
    ASSERT_EQ(bytes.size(), 16u);
    const std::string hex = xxh128_hex("smlora");
    for (std::size_t i = 0; i < 16; ++i) {
        EXPECT_EQ(static_cast<unsigned char>(bytes[i]), std::stoul(hex.substr(2 * i, 2), nullptr, 16));
    }
}

TEST(FieldHasher, SameFieldsGiveTheSameKey) {
    EXPECT_EQ(FieldHasher().add("arch", "sm_90a").add("option", "-O3").hex(),
              FieldHasher().add("arch", "sm_90a").add("option", "-O3").hex());
}

TEST(FieldHasher, HexLeavesTheHasherUsable) {
    FieldHasher hasher;
    hasher.add("a", "1");
    const std::string first = hasher.hex();
    EXPECT_EQ(hasher.hex(), first);
    EXPECT_EQ(hasher.add("b", "2").hex(), FieldHasher().add("a", "1").add("b", "2").hex());
}

TEST(FieldHasher, TextCannotMoveFromOneFieldToAnother) {
    const std::string key = FieldHasher().add("ab", "c").add("d", "").hex();
    EXPECT_NE(key, FieldHasher().add("a", "bc").add("d", "").hex());
    EXPECT_NE(key, FieldHasher().add("ab", "cd").add("", "").hex());
    EXPECT_NE(key, FieldHasher().add("ab", "c").add("", "d").hex());
    EXPECT_NE(key, FieldHasher().add("ab", "c").hex());
    EXPECT_NE(FieldHasher().add("a", "1").add("b", "2").hex(), FieldHasher().add("b", "2").add("a", "1").hex());
}

TEST(FieldHasher, BytesOfEveryValueCount) {
    EXPECT_NE(FieldHasher().add("v", std::string("\0", 1)).hex(), FieldHasher().add("v", "").hex());
    EXPECT_NE(FieldHasher().add("v", "\xff").hex(), FieldHasher().add("v", "\xfe").hex());
}

}  // namespace
}  // namespace smlora::util
