// The order in which the product on wgmma goes through its tiles: each tile once, and a unit's first column tile, which
// makes the rank rows, before its others.
#include "test/gpu.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace smlora::emulator {
namespace {

constexpr int groups = 8;  // seven experts and the entries left out
constexpr int columns = 5;

constexpr const char* source = R"(
#include "grouped_product_wgmma/tile.cuh"
using namespace smlora;
struct C {
    static constexpr int E = 7, RED = 256, OUT = 1280, RANK = 16, TOP_K = 2, ROWS = 0, OUT_ROWS = 1, WEIGHT_MAJOR = 1,
                         LORA_MAJOR = 0, RANK_MAJOR = 0, HAS_BIAS = 0, HAS_GATES = 0, SLICE = 0, MAKES_RANK_ROWS = 1,
                         COLUMN_TILES = 5, CLUSTER = 2, TILE_ROWS = 144, ROW_STEP = 8, STAGES = 4, STAGING_ROWS = 32;
    using Index = int;
    using Element = bf16;
    using Weight = weight::Plain;
};
extern "C" __global__ void test(int* places, const int* prefix, int experts_ahead) {
    for (int item = threadIdx.x; item < prefix[C::E + 1] * C::COLUMN_TILES; item += 32) {
        const auto place = grouped_product_wgmma::place_of<C>(prefix, item, experts_ahead);
        places[item * 3] = place.group;
        places[item * 3 + 1] = place.unit;
        places[item * 3 + 2] = place.column_tile;
    }
}
)";

struct Place {
    int group, unit, column_tile;
};

class TileOrder : public testing::Test {
 protected:
    /// In the order of items. `units`: of each group.
    std::vector<Place> places(const std::vector<int>& units, int experts_ahead) const {
        std::vector<int> prefix{0};
        for (const int count : units) prefix.push_back(prefix.back() + count);
        const auto items = static_cast<std::size_t>(prefix.back() * columns);
        const DeviceArray<int> out(items * 3 + 1), device_prefix(prefix);
        kernel_.run({}, out.data(), device_prefix.data(), experts_ahead);
        const std::vector<int> values = out.values();
        std::vector<Place> found;
        for (std::size_t i = 0; i < items; ++i) found.push_back({values[i * 3], values[i * 3 + 1], values[i * 3 + 2]});
        return found;
    }

 private:
    TestKernel kernel_{source};
};

TEST_F(TileOrder, HasEachTileOnceAndFirstColumnsFirst) {
    std::mt19937 random(20261126);
    for (int repeat = 0; repeat < 40; ++repeat) {
        std::vector<int> units;
        for (int i = 0; i < groups; ++i) units.push_back(std::max(0, static_cast<int>(random() % 7) - 2));
        const int ahead = 1 + static_cast<int>(random() % (groups + 1));
        std::vector<int> group_of;
        for (int group = 0; group < groups; ++group) {
            group_of.insert(group_of.end(), static_cast<std::size_t>(units[static_cast<std::size_t>(group)]), group);
        }
        std::set<std::pair<int, int>> seen;
        for (const Place& place : places(units, ahead)) {
            ASSERT_GE(place.unit, 0);
            ASSERT_LT(place.unit, static_cast<int>(group_of.size()));
            EXPECT_EQ(place.group, group_of[static_cast<std::size_t>(place.unit)]);
            EXPECT_TRUE(seen.insert({place.unit, place.column_tile}).second) << "a tile twice";
            EXPECT_TRUE(place.column_tile == 0 || seen.count({place.unit, 0}) == 1) << "waits for a later tile";
        }
        EXPECT_EQ(seen.size(), group_of.size() * columns);
    }
}

TEST_F(TileOrder, PutsABandBetweenAUnitsFirstTileAndItsOthers) {
    // Of three experts with two units each the first tiles; then, band by band, the next three's and the others.
    std::vector<std::tuple<int, int>> firsts;
    int others = 0;
    for (const Place& place : places({2, 2, 2, 2, 2, 2, 2, 0}, 3)) {
        if (place.column_tile == 0) {
            firsts.emplace_back(place.group / 3, others);
        } else {
            ++others;
        }
    }
    for (const auto& [band, others_before] : firsts) {
        EXPECT_EQ(others_before, band < 2 ? 0 : 6 * (columns - 1)) << "first tile of band " << band;
    }
}

TEST_F(TileOrder, WithAllExpertsInOneBandHasAllFirstTilesFirst) {
    const std::vector<Place> order = places({3, 0, 1, 5, 2, 0, 4, 1}, groups);
    for (std::size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i].column_tile == 0, i < 16) << i;
}

}  // namespace
}  // namespace smlora::emulator
