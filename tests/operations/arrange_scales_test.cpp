// arrange_scales: where each scale goes, what reads the result, and what is refused.
#include "support/backend.hpp"
#include "workload/array.hpp"
#include "workload/encoded.hpp"

#include <smlora/error.hpp>
#include <smlora/weight.hpp>

#include <cstddef>
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
        const auto [E, rows, columns, scales] =
            arranged_shape(format_of(weight), weight.E, weight.rows, weight.columns);
        const DType type = weight.scales.dtype;
        memory = Buffer(engine(), static_cast<std::size_t>(E * rows * columns * scales) * size_of(type));
        Weight made = weight;
        made.scales = {memory.data(), type, {E, rows, columns, scales}};
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
    {.encoding = Encoding::int4, .E = 2, .rows = 70, .columns = 96, .block = 32, .scales = DType::bf16, .deviation = 1},
    {.encoding = Encoding::int4, .E = 2, .rows = 256, .columns = 320, .block = 64, .scales = DType::bf16},
    {.encoding = Encoding::int4, .E = 1, .rows = 33, .columns = 384, .block = 128, .scales = DType::bf16},
};

/// The bytes of scale `index`.
std::uint16_t scale_bytes(const void* scales, DType type, std::int64_t index) {
    if (size_of(type) == 1) return static_cast<const std::uint8_t*>(scales)[index];
    return static_cast<const std::uint16_t*>(scales)[index];
}

TEST_P(ArrangeScales, PutsEachWhereItIsLookedForAndZerosBeside) {
    for (const EncodedShape& shape : extents) {
        const EncodedWeight weight(engine(), shape, fresh("arranged"));
        Buffer memory;
        const Weight made = arranged(weight.weight(), memory);
        std::vector<std::byte> got(memory.bytes());
        memory.copy_to_host(got.data(), got.size());
        const Tensor& given = weight.on_host().scales;
        const std::int64_t block = shape.encoding == Encoding::mxfp4 ? 32 : shape.block;
        const std::int64_t blocks = shape.columns / block;
        const std::int64_t in_row = made.scales.shape[3] / 64;
        int wrong = 0;
        for (std::int64_t e = 0; e < made.scales.shape[0]; ++e) {
            for (std::int64_t row = 0; row < made.scales.shape[1] * 64; ++row) {
                for (std::int64_t scale = 0; scale < made.scales.shape[2] * in_row; ++scale) {
                    const std::int64_t in_block = shape.encoding == Encoding::mxfp4 ? row % 64 * in_row + scale % in_row
                                                                                    : scale % in_row * 64 + row % 64;
                    const std::int64_t at =
                        ((e * made.scales.shape[1] + row / 64) * made.scales.shape[2] + scale / in_row) * 64 * in_row +
                        in_block;
                    const std::int64_t column = scale * 64 / in_row;
                    const bool inside = row < shape.rows && column < shape.columns;
                    const std::uint16_t wanted =
                        inside ? scale_bytes(given.data, given.dtype, (e * shape.rows + row) * blocks + column / block)
                               : 0;
                    wrong += scale_bytes(got.data(), given.dtype, at) != wanted;
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
              "W.scales: expected [E, rows, columns / block], got scales that are arranged already");
    Tensor narrow = made.scales;
    narrow.shape[2] = 3;
    EXPECT_NE(refusal([&] { arrange_scales(engine(), {}, {weight.weight(), narrow}); }).find("out"), std::string::npos);
    Weight plain(made.codes);
    EXPECT_EQ(refusal([&] {
                  arrange_scales(engine(), {}, {plain, made.scales});
              }),
              "W.encoding: expected mxfp4 or int4, got plain");

    const EncodedWeight odd_groups(
        engine(), {.encoding = Encoding::int4, .E = 1, .rows = 4, .columns = 96, .block = 48, .scales = DType::bf16},
        fresh("groups"));
    EXPECT_EQ(refusal([&] {
                  arrange_scales(engine(), {}, {odd_groups.weight(), made.scales});
              }),
              "W.block: expected 32 or a multiple of 64, got 48");
    const EncodedWeight of_fp16(
        engine(), {.encoding = Encoding::int4, .E = 1, .rows = 4, .columns = 96, .block = 32, .scales = DType::fp16},
        fresh("fp16"));
    EXPECT_EQ(refusal([&] {
                  arrange_scales(engine(), {}, {of_fp16.weight(), made.scales});
              }),
              "W.scales: expected bf16, got fp16");

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
