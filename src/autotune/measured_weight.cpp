#include "autotune/measured_weight.hpp"

#include "cpu/convert.hpp"
#include "cpu/operations.hpp"
#include "families/packed.hpp"
#include "util/thread_pool.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

namespace smlora::autotune {
namespace {

// A prime, so that rows and experts of any shape start at different places of the repeated codes.
constexpr std::size_t pattern_bytes = 1048573;

constexpr std::int64_t block_side = 64;

// Any will do: what is measured does not depend on them.
constexpr std::uint64_t seed = 24;

template <class T>
std::string bytes_of(const T& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0])};
}

/// Of e4m3 without NaN, and of a size.
constexpr unsigned char small_e4m3 = 0xBF;

std::string random_codes(const WeightFormat& format) {
    std::mt19937 random(seed);
    std::string bytes(pattern_bytes, '\0');
    const unsigned mask = families::code_bits(format) == 8 ? small_e4m3 : 0xFF;
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random() & mask); });
    return bytes;
}

/// So many scales of one size, of this type.
std::string random_scales(DType dtype, std::size_t count) {
    std::mt19937 random(seed + 1);
    std::uniform_real_distribution<float> from_half(0.5F, 1.0F);
    std::string bytes;
    for (std::size_t i = 0; i < count; ++i) {
        if (dtype == DType::fp32) {
            const std::array value{from_half(random)};
            bytes += bytes_of(value);
        } else if (dtype == DType::bf16) {
            const std::array value{cpu::to_bf16(from_half(random)).bits};
            bytes += bytes_of(value);
        } else {
            // Of powers of two from 2^-7 on, and of e4m3 from 2^-2 on.
            const unsigned least = dtype == DType::e4m3 ? 0x28 : 120;
            bytes += static_cast<char>(least + random() % 8);
        }
    }
    return bytes;
}

bool chooses_from_table(const WeightFormat& format) {
    return format.encoding == Encoding::nf4 || format.encoding == Encoding::fp4;
}

/// The table of nf4 and fp4, or nvfp4's global scale.
std::vector<float> values_of(const WeightFormat& format) {
    std::vector<float> values;
    if (format.encoding == Encoding::nvfp4) values.push_back(0.75F);
    if (!chooses_from_table(format)) return values;
    for (int i = 0; i < 16; ++i) values.push_back(static_cast<float>(i) / 8 - 1);
    return values;
}

/// 64 x 64 values with scales as a checkpoint has them.
Weight block_of(const WeightFormat& format, std::string& codes, std::string& scales, std::vector<float>& values) {
    Weight block;
    block.encoding = format.encoding;
    block.E = 1;
    block.rows = block.columns = block_side;
    block.block = std::min(format.block, block_side);
    const std::int64_t code_bytes = block_side * families::code_bits(format) / 8;
    const bool e4m3 = families::code_bits(format) == 8;
    block.codes = Tensor(codes.data(), e4m3 ? DType::e4m3 : DType::uint8, {1, block_side, code_bytes});
    const DType type = format.encoding == Encoding::nvfp4 ? DType::e4m3 : format.scales;
    const bool square = format.encoding == Encoding::fp8;
    const std::int64_t in_row = block_side / block.block;
    const std::int64_t rows = square ? 1 : block_side;
    scales = random_scales(type, static_cast<std::size_t>(rows * in_row));
    block.scales = Tensor(scales.data(), type, {1, rows, in_row});
    if (format.encoding == Encoding::nvfp4) {
        block.global_scales = Tensor(values.data(), DType::fp32, {1, 1});
        block.global_scale = format.global_scale;
    }
    if (chooses_from_table(format)) block.table = Tensor(values.data(), DType::fp32, {16});
    return block;
}

/// The scales of 64 x 64 values, arranged.
std::string arranged_block(const WeightFormat& format, std::string codes, std::vector<float> values) {
    std::string scales;
    ArrangeScalesArgs args;
    args.W = block_of(format, codes, scales, values);
    const std::array<std::int64_t, 4> shape = arranged_shape(format, 1, block_side, block_side);
    const std::size_t bytes = static_cast<std::size_t>(shape[3]) * size_of(format.scales);
    std::string all(bytes * static_cast<std::size_t>(shape[1] * shape[2]), '\0');
    args.out = Tensor(all.data(), format.scales, {shape[0], shape[1], shape[2], shape[3]});
    util::ThreadPool alone(1);
    static_cast<void>(cpu::arrange_scales(alone, args));
    return all.substr(0, bytes);
}

WeightPart part(std::int64_t bytes, std::string pattern) {
    return {bytes, std::make_shared<const std::string>(std::move(pattern))};
}

}  // namespace

MeasuredWeight::MeasuredWeight(const Problem& problem) : problem_(problem) {
    const WeightFormat& format = problem.weights;
    const Weight weight = at(nullptr, nullptr, nullptr);
    codes_ = part(problem.E * problem.K * problem.N * families::code_bits(format) / 8, random_codes(format));
    const std::vector<float> values = values_of(format);
    std::string block = arranged_block(format, *codes_.pattern, values);
    scales_ = part(weight.scales.numel() * static_cast<std::int64_t>(size_of(weight.scales.dtype)), std::move(block));
    if (!values.empty()) values_ = part(static_cast<std::int64_t>(values.size() * sizeof(float)), bytes_of(values));
}

Weight MeasuredWeight::at(void* codes, void* scales, void* values) const {
    const WeightFormat& format = problem_.weights;
    const bool enk = problem_.weight_layout == WeightLayout::enk;
    const std::int64_t bits = families::code_bits(format);
    Weight weight;
    weight.encoding = format.encoding;
    weight.E = problem_.E;
    weight.rows = enk ? problem_.N : problem_.K;
    weight.columns = enk ? problem_.K : problem_.N;
    weight.block = format.block;
    weight.parts = format.parts;
    weight.codes =
        Tensor(codes, bits == 8 ? DType::e4m3 : DType::uint8, {weight.E, weight.rows, weight.columns * bits / 8});
    const std::array<std::int64_t, 4> shape = arranged_shape(format, weight.E, weight.rows, weight.columns);
    weight.scales = Tensor(scales, format.scales, {shape[0], shape[1], shape[2], shape[3]});
    if (format.encoding == Encoding::nvfp4) {
        weight.global_scale = format.global_scale;
        weight.global_scales = Tensor(values, DType::fp32, {weight.E, weight.parts}, {0, 0});
    } else {
        weight.table = Tensor(values, DType::fp32, {16});
    }
    return weight;
}

}  // namespace smlora::autotune
