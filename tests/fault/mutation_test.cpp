// Random damage to entries and random things in the folders of a layer: misses, never crashes, never a wrong kernel.
#include "cache/cache.hpp"
#include "cache/layer.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <random>

namespace smlora::cache {
namespace {

using testing::sample_entry;
using testing::sample_key;

class Mutation : public testing::CacheTest {
 protected:
    std::size_t below(std::size_t limit) { return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_); }

    std::string noise(std::size_t length) {
        std::string bytes(length, '\0');
        for (char& byte : bytes) byte = static_cast<char>(below(256));
        return bytes;
    }

    std::string mutated(std::string bytes) {
        for (std::size_t change = 0; change <= below(4); ++change) {
            const std::size_t at = below(bytes.size() + 1);
            switch (below(6)) {
                case 0:
                    bytes.resize(at);
                    break;
                case 1:
                    bytes.insert(at, noise(1 + below(20)));
                    break;
                case 2:
                    bytes.erase(at, 1 + below(20));
                    break;
                case 3:  // a block of zeros, as a file system leaves it after a crash
                    bytes.replace(at, std::min(bytes.size() - at, below(64)), std::string(below(64), '\0'));
                    break;
                case 4:  // the header is where the lengths are
                    if (bytes.size() >= 24) bytes[below(24)] = static_cast<char>(below(256));
                    break;
                default:
                    if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
            }
        }
        return bytes;
    }

    std::mt19937 random_{20240229};  // the same damage on every run
};

TEST_F(Mutation, OfAnEntryIsAMiss) {
    Cache cache(options(), log.logger);
    const std::string key = sample_key(1);
    const std::string sound = encode_for(key, sample_entry(1));
    std::uint64_t damaged = 0;
    for (int round = 0; round < 3000; ++round) {
        const std::string bytes = mutated(sound);
        testing::write_file(entry_file(root(), key), bytes);
        const auto entry = cache.load(key);
        // Several changes may undo each other.
        ASSERT_EQ(entry.has_value(), bytes == sound) << "round " << round;
        if (bytes != sound) ++damaged;
    }
    EXPECT_EQ(cache.rejected(), damaged);
    EXPECT_GT(damaged, 2500u);
    EXPECT_EQ(log.warnings().size(), 1u);
}

TEST_F(Mutation, EveryFlippedBitOfAStoredEntryIsAMiss) {
    Cache cache(options(), log.logger);
    const std::string key = sample_key(1);
    const std::string sound = encode_for(key, sample_entry(1, 64));
    for (std::size_t bit = 0; bit < sound.size() * 8; ++bit) {
        std::string bytes = sound;
        bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
        testing::write_file(entry_file(root(), key), bytes);
        ASSERT_FALSE(cache.load(key).has_value()) << "bit " << bit;
    }
    testing::write_file(entry_file(root(), key), sound);
    EXPECT_TRUE(cache.load(key).has_value());
}

TEST_F(Mutation, OfTheFoldersIsAMiss) {
    Cache cache(options(), log.logger);
    const std::filesystem::path version = version_folder(root());
    const auto try_everything = [&](const std::string& key) {
        EXPECT_FALSE(cache.load(key).has_value()) << key;
        EXPECT_TRUE(cache.list().empty());
        static_cast<void>(cache.verify());
        static_cast<void>(cache.usage());
        int runs = 0;
        cache.with_lock(key, [&] { ++runs; });
        EXPECT_EQ(runs, 1);
    };
    const std::string key = sample_key(1);
    const std::filesystem::path file = entry_file(root(), key);
    std::filesystem::create_directories(root());
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);

    // Files in the place of each folder.
    for (const auto& place : {version, version / "kernels", file.parent_path()}) {
        std::filesystem::remove_all(version);
        testing::write_file(place, noise(100));
        try_everything(key);
        EXPECT_FALSE(cache.store(key, sample_entry(1)));
    }

    std::filesystem::remove_all(version);
    std::filesystem::create_directories(file.parent_path());

    // Things that are no regular file in the place of the entry.
    std::filesystem::create_directories(file / "full");
    try_everything(key);
    EXPECT_FALSE(cache.store(key, sample_entry(1)));
    std::filesystem::remove_all(file);

    ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
    try_everything(key);
    EXPECT_FALSE(std::filesystem::exists(file));

    const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(file.string().size(), sizeof address.sun_path);
    file.string().copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    try_everything(key);
    ::close(socket);
    std::filesystem::remove(file);

    for (const std::filesystem::path target : {"/nowhere", "/dev/zero", "/", file.c_str()}) {
        std::filesystem::create_symlink(target, file);
        try_everything(key);
        std::filesystem::remove(file);
    }

    // A hole of a terabyte is refused by its size, not read.
    testing::write_file(file, "x");
    std::filesystem::resize_file(file, std::uintmax_t{1} << 40);
    try_everything(key);
    EXPECT_FALSE(std::filesystem::exists(file));

    // The lock and the stamp, too.
    std::filesystem::remove(lock_file(root()));
    std::filesystem::create_directories(lock_file(root()) / "full");
    std::filesystem::create_directories(upkeep_file(root()) / "full");
    try_everything(key);
    EXPECT_TRUE(cache.store(key, sample_entry(1)));
    EXPECT_TRUE(cache.load(key).has_value());
}

TEST_F(Mutation, RandomFilesInTheFoldersAreNoEntries) {
    const std::filesystem::path kernels = version_folder(root()) / "kernels";
    const std::string characters = "0123456789abcdef.-~ \xc3\xa9";
    for (int number = 0; number < 300; ++number) {
        std::string name;
        const std::size_t length = 1 + below(40);
        for (std::size_t i = 0; i < length; ++i) name += characters[below(characters.size())];
        if (name == "." || name == "..") continue;
        std::error_code taken;
        const std::filesystem::path folder = kernels / fmt::format("{:02x}", number % 256);
        if (number % 10 == 0) {
            std::filesystem::create_directories(folder / name, taken);
        } else if (number % 3 == 0) {
            testing::write_file(entry_file(root(), sample_key(number)), noise(below(200)));
        } else {
            std::filesystem::create_directories(folder);
            if (!std::filesystem::is_directory(folder / name)) testing::write_file(folder / name, noise(below(200)));
        }
    }
    std::filesystem::permissions(root(), std::filesystem::perms::owner_all);
    Cache cache(options(), log.logger);
    EXPECT_TRUE(cache.list().empty());
    EXPECT_GE(cache.verify().size(), 50u);
    for (int number = 0; number < 300; ++number) {
        ASSERT_FALSE(cache.load(sample_key(number)).has_value());
        ASSERT_TRUE(cache.store(sample_key(number), sample_entry(number)));
    }
    EXPECT_EQ(cache.list().size(), 300u);
    EXPECT_TRUE(cache.verify().empty());
}

}  // namespace
}  // namespace smlora::cache
