// arrange_scales: where each scale goes, what reads the result, and what is refused.
#include "support/backend.hpp"
#include "workload/array.hpp"
#include "workload/encoded.hpp"

#include <smlora/error.hpp>
#include <smlora/weight.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
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
        const DType type = arranged_format(format_of(weight)).scales;
        memory = Buffer(engine(), static_cast<std::size_t>(E * rows * columns * scales) * size_of(type));
        Weight made = weight;
        made.scales = {memory.data(), type, {E, rows, columns, scales}};
        arrange_scales(engine(), {}, {weight, made.scales});
        made.double_quantization = {};
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
    {.encoding = Encoding::mxfp8, .E = 2, .rows = 70, .columns = 96, .scales = DType::e8m0, .deviation = 1},
};

/// Of formats whose scales get another type or company.
const std::vector<EncodedShape> more_extents{
    {.encoding = Encoding::nf4, .E = 2, .rows = 70, .columns = 192, .deviation = 1},
    {.encoding = Encoding::nf4, .E = 2, .rows = 70, .columns = 128, .double_quantized = 256, .deviation = 1},
    {.encoding = Encoding::fp4, .E = 1, .rows = 33, .columns = 384, .block = 128, .deviation = 1},
    {.encoding = Encoding::fp8, .E = 2, .rows = 300, .columns = 200, .scales = DType::fp32, .deviation = 1},
    {.encoding = Encoding::fp8, .E = 2, .rows = 384, .columns = 96, .parts = 2, .scales = DType::bf16, .deviation = 1},
    {.encoding = Encoding::fp8, .E = 1, .rows = 65, .columns = 64, .block = 64, .scales = DType::e8m0, .deviation = 1},
    {.encoding = Encoding::nvfp4, .E = 2, .rows = 128, .columns = 80, .parts = 2, .deviation = 1},
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
        const bool bytes = size_of(given.dtype) == 1;
        const std::int64_t block = bytes ? 32 : shape.block;
        const std::int64_t blocks = shape.columns / block;
        const std::int64_t in_row = made.scales.shape[3] / 64;
        int wrong = 0;
        for (std::int64_t e = 0; e < made.scales.shape[0]; ++e) {
            for (std::int64_t row = 0; row < made.scales.shape[1] * 64; ++row) {
                for (std::int64_t scale = 0; scale < made.scales.shape[2] * in_row; ++scale) {
                    const std::int64_t in_block =
                        bytes ? row % 64 * in_row + scale % in_row : scale % in_row * 64 + row % 64;
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
    std::vector<EncodedShape> shapes = extents;
    shapes.insert(shapes.end(), more_extents.begin(), more_extents.end());
    for (const EncodedShape& shape : shapes) {
        const EncodedWeight weight(engine(), shape, fresh("values"));
        Buffer memory;
        const Weight made = arranged(weight.weight(), memory);
        EXPECT_TRUE(format_of(made).arranged);
        EXPECT_EQ(format_of(made), arranged_format(format_of(weight.weight())));
        for (const DType dtype : {DType::bf16, DType::fp32}) {
            Array before(engine(), dtype, {{shape.E, shape.rows, shape.columns}});
            Array after(engine(), dtype, {{shape.E, shape.rows, shape.columns}});
            dequantize(engine(), {}, {weight.weight(), before.view()});
            dequantize(engine(), {}, {made, after.view()});
            synchronize(engine(), {});
            before.download();
            after.download();
            EXPECT_TRUE(after.same_bits(before)) << to_string(format_of(made));
            EXPECT_TRUE(after.untouched_outside());
        }
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
              "W.scales: expected those of a checkpoint, got scales that are arranged already");
    Tensor narrow = made.scales;
    narrow.shape[2] = 3;
    EXPECT_NE(refusal([&] { arrange_scales(engine(), {}, {weight.weight(), narrow}); }).find("out"), std::string::npos);
    Weight plain(made.codes);
    EXPECT_EQ(refusal([&] {
                  arrange_scales(engine(), {}, {plain, made.scales});
              }),
              "W.encoding: expected one whose scales can be arranged (mxfp4, mxfp8, nvfp4, int4, nf4, fp4 or fp8), got "
              "plain");

    const EncodedWeight odd_groups(
        engine(), {.encoding = Encoding::int4, .E = 1, .rows = 4, .columns = 96, .block = 48, .scales = DType::bf16},
        fresh("groups"));
    EXPECT_EQ(refusal([&] {
                  arrange_scales(engine(), {}, {odd_groups.weight(), made.scales});
              }),
              "W.block: expected 32 or a multiple of 64 to arrange scales of int4, got 48");
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

/// Puts `bytes` at `at` of a copy of the tensor in `memory`.
template <class Value>
Tensor changed(const Tensor& tensor, const Engine& engine, Buffer& memory, std::int64_t at, Value value) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype));
    std::memcpy(bytes.data(), tensor.data, bytes.size());
    std::memcpy(bytes.data() + static_cast<std::size_t>(at) * sizeof value, &value, sizeof value);
    memory = Buffer(engine, bytes.size());
    memory.copy_from_host(bytes.data(), bytes.size());
    Tensor copy = tensor;
    copy.data = memory.data();
    return copy;
}

TEST_P(ArrangeScales, RefusesWhatProductsHaveNoRoomFor) {
    const std::string otherwise = "; products unpack such weights, with their scales as they are";
    const auto refused = [&](const EncodedShape& shape, const auto& change) {
        const EncodedWeight weight(engine(), shape, fresh("no_room"));
        Weight odd = weight.weight();
        Buffer changed_memory, memory;
        change(weight.on_host(), odd, changed_memory);
        return refusal([&] { arranged(odd, memory); });
    };
    const EncodedShape fp8{
        .encoding = Encoding::fp8, .E = 2, .rows = 130, .columns = 72, .scales = DType::fp32, .deviation = 1};
    for (const float scale :
         {256.0F, -300.0F, 1e-30F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        EXPECT_EQ(refused(fp8, [&](const Weight& host, Weight& odd,
                                   Buffer& memory) { odd.scales = changed(host.scales, engine(), memory, 3, scale); }),
                  "W.scales: expected 0 or a magnitude from 2^-80 to 2^8, got others in 2 blocks of 64 x 64 values" +
                      otherwise)
            << scale;
    }
    for (const int code : {0x7f, 0xff}) {
        for (const std::int64_t at : {0, 72 * 130 * 2 - 1}) {
            EXPECT_EQ(refused(fp8,
                              [&](const Weight& host, Weight& odd, Buffer& memory) {
                                  odd.codes =
                                      changed(host.codes, engine(), memory, at, static_cast<std::uint8_t>(code));
                              }),
                      "W.codes: expected numbers, got NaN" + otherwise);
        }
    }
    const EncodedShape mxfp8{
        .encoding = Encoding::mxfp8, .E = 1, .rows = 2, .columns = 32, .scales = DType::e8m0, .deviation = 1};
    EXPECT_EQ(refused(mxfp8,
                      [&](const Weight& host, Weight& odd, Buffer& memory) {
                          odd.scales = changed(host.scales, engine(), memory, 1, std::uint8_t{135});
                      }),
              "W.scales: expected 134 or less each, got 135" + otherwise);
    const EncodedShape nvfp4{.encoding = Encoding::nvfp4, .E = 2, .rows = 64, .columns = 64, .deviation = 1};
    EXPECT_EQ(refused(nvfp4,
                      [&](const Weight& host, Weight& odd, Buffer& memory) {
                          odd.scales = changed(host.scales, engine(), memory, 5, std::uint8_t{0xff});
                      }),
              "W.scales: expected numbers, got NaN" + otherwise);
    const EncodedShape divisor{.encoding = Encoding::nvfp4,
                               .E = 2,
                               .rows = 64,
                               .columns = 64,
                               .global_scale = GlobalScale::divisor,
                               .deviation = 1};
    const auto without_sum = [&](const Weight& host, Weight& odd, Buffer& memory) {
        odd.global_scales = changed(host.global_scales, engine(), memory, 1,
                                    host.global_scale == GlobalScale::divisor ? 0.0F : 0x1.8aaaa8p+0F);
    };
    const std::string expected =
        "a magnitude from 2^-80 to 2^80 that is the sum of two bf16 for all products with it, "
        "got others in 1 blocks of 64 x 64 values" +
        otherwise;
    EXPECT_EQ(refused(nvfp4, without_sum), "W.global_scales: expected 0 or " + expected);
    EXPECT_EQ(refused(divisor, without_sum), "W.global_scales: expected " + expected);
    EXPECT_EQ(refused({.encoding = Encoding::nf4, .E = 1, .rows = 4, .columns = 96, .deviation = 1},
                      [](const Weight&, const Weight&, const Buffer&) {}),
              "W.block: expected a divisor of columns = 96 to arrange scales of nf4, got 64");
    EXPECT_EQ(refused({.encoding = Encoding::fp8, .E = 1, .rows = 192, .columns = 64, .parts = 2, .deviation = 1},
                      [](const Weight&, const Weight&, const Buffer&) {}),
              "W.parts: expected parts of a multiple of 64 rows to arrange scales of fp8, got 2 of 96 rows");
}

SMLORA_ON_EACH_BACKEND(Backends, ArrangeScales);

}  // namespace
}  // namespace smlora::test
