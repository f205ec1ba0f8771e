#include "cache/entry.hpp"

#include "unit/cache/fixtures.hpp"
#include "util/hash.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace smlora::cache {
namespace {

using testing::fake_cubin;
using testing::sample_entry;

std::string bytes_of(std::string_view hex) {
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        bytes += static_cast<char>(std::stoul(std::string(hex.substr(i, 2)), nullptr, 16));
    }
    return bytes;
}

// Written by another program from the description in entry.hpp. When the format changes, entry_format must change with
// it, and this entry stays here as one that is refused.
const std::string golden_entry = bytes_of(
    "534d4c4f52414b31"  // SMLORAK1
    "01000000"          // format 1
    "20000000"          // 32 bytes of metadata
    "4600000000000000"  // 70 bytes of cubin
    "7b2261726368223a22736d5f393061222c22726567697374657273223a34327d"
    "7f454c460201787878787878787878787878be00"
    "7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878"
    "895fd36ca5d6b29c3a4dd099fdd79010");

const KernelEntry golden_content{{{"arch", "sm_90a"}, {"registers", 42}}, fake_cubin(70, 'x')};

bool is_sound(std::string_view bytes) {
    std::string why;
    const bool sound = decode(bytes, why).has_value();
    EXPECT_EQ(sound, why.empty());
    return sound;
}

std::string reason(std::string_view bytes) {
    std::string why;
    EXPECT_FALSE(decode(bytes, why).has_value());
    return why;
}

/// With the hash made right again: damage that only the other checks can find.
std::string with_hash(std::string bytes) {
    bytes.resize(bytes.size() - 16);
    return bytes + util::xxh128_bytes(bytes);
}

std::string with_number(std::string bytes, std::size_t offset, std::size_t width, std::uint64_t number) {
    for (std::size_t i = 0; i < width; ++i) bytes[offset + i] = static_cast<char>((number >> (8 * i)) & 0xff);
    return with_hash(bytes);
}

TEST(Entry, FormatIsTheOneThatWasPublished) { EXPECT_EQ(encode(golden_content), golden_entry); }

TEST(Entry, PublishedEntriesCanStillBeRead) {
    std::string why;
    const auto entry = decode(golden_entry, why);
    ASSERT_TRUE(entry.has_value()) << why;
    EXPECT_EQ(entry->metadata, golden_content.metadata);
    EXPECT_EQ(entry->cubin, golden_content.cubin);
}

TEST(Entry, LargeContentComesBack) {
    const KernelEntry entry{{{"log", std::string(200'000, 'l')}, {"seconds", 0.4}}, fake_cubin(3'000'000, '\0')};
    std::string why;
    const auto decoded = decode(encode(entry), why);
    ASSERT_TRUE(decoded.has_value()) << why;
    EXPECT_EQ(decoded->metadata, entry.metadata);
    EXPECT_EQ(decoded->cubin, entry.cubin);
}

TEST(Entry, BytesThatAreNoTextDoNotKeepItFromBeingStored) {
    KernelEntry entry = golden_content;
    entry.metadata["compiler"] = "nvrtc \xff\xfe";
    EXPECT_TRUE(is_sound(encode(entry)));
}

TEST(Entry, EveryFlippedBitIsFound) {
    for (std::size_t byte = 0; byte < golden_entry.size(); ++byte) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string damaged = golden_entry;
            damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << bit));
            ASSERT_FALSE(is_sound(damaged)) << "byte " << byte << " bit " << bit;
        }
    }
}

TEST(Entry, EveryTruncationIsFound) {
    for (std::size_t length = 0; length < golden_entry.size(); ++length) {
        ASSERT_FALSE(is_sound(std::string_view(golden_entry).substr(0, length))) << length;
    }
}

TEST(Entry, TrailingBytesAreFound) {
    EXPECT_FALSE(is_sound(golden_entry + '\0'));
    EXPECT_FALSE(is_sound(golden_entry + golden_entry));
}

TEST(Entry, LengthsBeyondTheFileAreFoundWithoutOverflow) {
    const std::uint64_t content = 32 + 70;
    const std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();
    for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{69}, std::uint64_t{71}, content, largest,
                                       largest - 31, largest - 32, largest - 23, largest - 24, largest - 39,
                                       largest - 71, largest / 2, largest / 2 + 1, std::uint64_t{1} << 32}) {
        EXPECT_FALSE(is_sound(with_number(golden_entry, 16, 8, length))) << length;
    }
    for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{31}, std::uint64_t{33}, content, content + 1,
                                       std::uint64_t{0x7fffffff}, std::uint64_t{0xffffffff}}) {
        EXPECT_FALSE(is_sound(with_number(golden_entry, 12, 4, length))) << length;
    }
    // Both wrong with the right sum: 64 bits of it once they have wrapped around, too.
    EXPECT_FALSE(is_sound(with_number(with_number(golden_entry, 12, 4, 33), 16, 8, 69)));
    EXPECT_FALSE(is_sound(with_number(with_number(golden_entry, 12, 4, 0xffffffff), 16, 8, content - 0xffffffff)));
}

TEST(Entry, ReasonsSayWhatIsWrong) {
    EXPECT_EQ(reason(""), "only 0 bytes");
    EXPECT_EQ(reason(std::string(100, 'x')), "not a kernel entry");
    EXPECT_EQ(reason(with_number(golden_entry, 8, 4, 2)), "format 2, expected 1");
    EXPECT_EQ(reason(with_number(golden_entry, 16, 8, 71)), "142 bytes do not hold 32 of metadata and 71 of cubin");
    std::string damaged = golden_entry;
    damaged[40] = 'X';
    EXPECT_EQ(reason(damaged), "the hash does not match the content");
    EXPECT_EQ(reason(with_hash(damaged)).substr(0, 12), "the metadata");
}

TEST(Entry, PayloadMustBeACubin) {
    for (const std::size_t byte : {0u, 1u, 2u, 3u, 4u, 5u, 18u, 19u}) {
        KernelEntry entry = golden_content;
        entry.cubin[byte] = static_cast<char>(entry.cubin[byte] ^ 0x40);
        EXPECT_EQ(reason(encode(entry)), "the payload is not a cubin") << byte;
    }
    for (const std::size_t length : {0u, 6u, 63u}) {
        KernelEntry entry = golden_content;
        entry.cubin.resize(length);
        EXPECT_EQ(reason(encode(entry)), "the payload is not a cubin") << length;
    }
}

TEST(Entry, MetadataMustBeAnObject) {
    for (const nlohmann::json& metadata : {nlohmann::json(), nlohmann::json(7), nlohmann::json::array()}) {
        EXPECT_EQ(reason(encode({metadata, golden_content.cubin})), "the metadata is not a JSON object");
    }
}

TEST(Entry, ForeignFilesAreNoEntries) {
    EXPECT_FALSE(is_sound(fake_cubin(4096, 'x')));
    EXPECT_FALSE(is_sound(std::string(4096, '\0')));
    EXPECT_FALSE(is_sound("SMLORAK1"));
}

}  // namespace
}  // namespace smlora::cache
