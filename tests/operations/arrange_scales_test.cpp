// arrange_scales: where each scale goes, what reads the result, and what is refused.
#include "support/backend.hpp"
#include "workload/array.hpp"
#include "workload/encoded.hpp"

#include <smlora/error.hpp>
#include <smlora/weight.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace smlora::test {
namespace {

using workload::Array;
using workload::EncodedShape;
using workload::EncodedWeight;

class ArrangeScales : public OnEachBackend {
 protected:
    /// The weight with the scales that it was given, arranged, in `memory`.
    Weight arranged(const Weight& weight, Buffer& memory) const {
        const auto [E, rows, columns, bytes] = arranged_shape(weight.E, weight.rows, weight.columns);
        memory = Buffer(engine(), static_cast<std::size_t>(E * rows * columns * bytes));
        Weight made = weight;
        made.scales = {memory.data(), weight.scales.dtype, {E, rows, columns, bytes}};
        arrange_scales(engine(), {}, {weight, made.scales});
        return made;
    }

    static std::string refusal(const std::function<void()>& call) {
        try {
            call();
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            return error.what();
        }
        ADD_FAILURE() << "nothing was refused";
        return {};
    }
};

/// Whole blocks; neither; several blocks beside each other.
const std::vector<EncodedShape> extents{
    {.encoding = Encoding::mxfp4, .E = 2, .rows = 256, .columns = 256, .scales = DType::e8m0, .deviation = 1},
    {.encoding = Encoding::mxfp4, .E = 3, .rows = 70, .columns = 96, .scales = DType::uint8, .deviation = 1},
    {.encoding = Encoding::mxfp4, .E = 1, .rows = 321, .columns = 2880, .scales = DType::e8m0, .deviation = 1},
};

TEST_P(ArrangeScales, PutsEachWhereItIsLookedForAndZerosBeside) {
    for (const EncodedShape& shape : extents) {
        const EncodedWeight weight(engine(), shape, fresh("arranged"));
        Buffer memory;
        const Weight made = arranged(weight.weight(), memory);
        std::vector<std::uint8_t> got(memory.bytes());
        memory.copy_to_host(got.data(), got.size());
        const auto* const scales = static_cast<const std::uint8_t*>(weight.on_host().scales.data);
        const std::int64_t blocks = shape.columns / 32;
        int wrong = 0;
        for (std::int64_t e = 0; e < made.scales.shape[0]; ++e) {
            for (std::int64_t row = 0; row < made.scales.shape[1] * 64; ++row) {
                for (std::int64_t block = 0; block < made.scales.shape[2] * 2; ++block) {
                    const std::int64_t at =
                        ((e * made.scales.shape[1] + row / 64) * made.scales.shape[2] + block / 2) * 128 +
                        row % 64 * 2 + block % 2;
                    const bool inside = row < shape.rows && block < blocks;
                    const std::uint8_t wanted = inside ? scales[(e * shape.rows + row) * blocks + block] : 0;
                    wrong += got[static_cast<std::size_t>(at)] != wanted;
                }
            }
        }
        EXPECT_EQ(wrong, 0) << shape.rows << " x " << shape.columns;
    }
}

TEST_P(ArrangeScales, ChangesNoValueOfTheWeight) {
    for (const EncodedShape& shape : extents) {
        const EncodedWeight weight(engine(), shape, fresh("values"));
        Buffer memory;
        const Weight made = arranged(weight.weight(), memory);
        EXPECT_TRUE(format_of(made).arranged);
        Array before(engine(), DType::bf16, {{shape.E, shape.rows, shape.columns}});
        Array after(engine(), DType::bf16, {{shape.E, shape.rows, shape.columns}});
        dequantize(engine(), {}, {weight.weight(), before.view()});
        dequantize(engine(), {}, {made, after.view()});
        synchronize(engine(), {});
        before.download();
        after.download();
        EXPECT_TRUE(after.same_bits(before));
        EXPECT_TRUE(after.untouched_outside());
    }
}

TEST_P(ArrangeScales, RefusesWhatItCannotArrange) {
    const EncodedShape shape{.encoding = Encoding::mxfp4, .E = 1, .rows = 64, .columns = 64, .scales = DType::uint8};
    EncodedShape of_usual = shape;
    of_usual.deviation = 1;
    const EncodedWeight weight(engine(), of_usual, fresh("refused"));
    Buffer memory;
    const Weight made = arranged(weight.weight(), memory);
    EXPECT_EQ(refusal([&] {
                  arrange_scales(engine(), {}, {made, made.scales});
              }),
              "W.scales: expected [E, rows, columns / 32], got scales that are arranged already");
    Tensor narrow = made.scales;
    narrow.shape[2] = 3;
    EXPECT_NE(refusal([&] { arrange_scales(engine(), {}, {weight.weight(), narrow}); }).find("out"), std::string::npos);
    Weight plain(made.codes);
    EXPECT_EQ(refusal([&] {
                  arrange_scales(engine(), {}, {plain, made.scales});
              }),
              "W.encoding: expected mxfp4, got plain");

    // A factor of 4 among the usual ones.
    std::vector<std::uint8_t> scales(128, 120);
    scales[77] = 129;
    Buffer large(engine(), scales.size());
    large.copy_from_host(scales.data(), scales.size());
    Weight too_large = weight.weight();
    too_large.scales.data = large.data();
    EXPECT_EQ(
        refusal([&] {
            arrange_scales(engine(), {}, {too_large, made.scales});
        }),
        "W.scales: expected 128 or less each, got 129; products unpack such weights, with their scales as they are");
    scales[77] = 128;
    large.copy_from_host(scales.data(), scales.size());
    arrange_scales(engine(), {}, {too_large, made.scales});
}

SMLORA_ON_EACH_BACKEND(Backends, ArrangeScales);

}  // namespace
}  // namespace smlora::test
