#include "check/weight_format.hpp"

#include "check/fail.hpp"
#include "describe.hpp"
#include "scale_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

namespace smlora::check {
namespace {

void check_block(const char* weight, const WeightFormat& format, std::int64_t columns) {
    const std::int64_t block = format.block;
    const auto wrong = [&](const char* expected) {
        fail("{}.block: expected {} for {}, got {}", weight, expected, name(format.encoding), block);
    };
    switch (format.encoding) {
        case Encoding::plain:
        case Encoding::int8:
            return;
        case Encoding::nf4:
        case Encoding::fp4:
            if (block < 32 || block > 4096 || (block & (block - 1)) != 0) wrong("a power of two from 32 to 4096");
            return;  // blocks are counted across rows
        case Encoding::fp8:
            if (block < 1) wrong("1 or more");
            return;  // the last ones may be narrower
        case Encoding::int4:
            if (block < 2 || block % 2 != 0) wrong("an even number above 0");
            break;
        case Encoding::mxfp4:
        case Encoding::mxfp8:
            if (block != 32) wrong("32");
            break;
        case Encoding::nvfp4:
            if (block != 16) wrong("16");
            break;
    }
    if (columns % block != 0) fail("{}.block: expected a divisor of columns = {}, got {}", weight, columns, block);
}

}  // namespace

void check_can_be_arranged(const char* weight, const WeightFormat& format, std::int64_t rows, std::int64_t columns) {
    const Encoding encoding = format.encoding;
    if (scale_order(usual_format(encoding)).in_row == 0) {
        fail(
            "{}.encoding: expected one whose scales can be arranged (mxfp4, mxfp8, nvfp4, int4, nf4, fp4 or fp8), got "
            "{}",
            weight, name(encoding));
    }
    if (scale_order(format).in_row == 0) {
        fail("{}.block: expected {}a multiple of 64 to arrange scales of {}, got {}", weight,
             encoding == Encoding::int4 ? "32 or " : "", name(encoding), format.block);
    }
    const bool flat = encoding == Encoding::nf4 || encoding == Encoding::fp4;
    if (flat && columns % format.block != 0) {
        fail("{}.block: expected a divisor of columns = {} to arrange scales of {}, got {}", weight, columns,
             name(encoding), format.block);
    }
    if (scale_order(format).has_split && format.parts > 1 && rows / format.parts % weight::scale_block != 0) {
        fail("{}.parts: expected parts of a multiple of 64 rows to arrange scales of {}, got {} of {} rows", weight,
             name(encoding), format.parts, rows / format.parts);
    }
}

void check_format(const char* weight, const WeightFormat& format, std::int64_t rows, std::int64_t columns) {
    (void)name(format.encoding);
    if (format.encoding == Encoding::plain) return;
    if (format.parts < 1 || rows % format.parts != 0) {
        fail("{}.parts: expected a divisor of rows = {}, got {}", weight, rows, format.parts);
    }
    check_block(weight, format, columns);
    if (format.arranged) check_can_be_arranged(weight, format, rows, columns);
    if (format.outer_block < 0) fail("{}.outer_block: expected 0 or more, got {}", weight, format.outer_block);
    if (format.outer_block > 0 && format.encoding != Encoding::nf4 && format.encoding != Encoding::fp4) {
        fail("{}.outer_block: expected 0 for {}, got {}", weight, name(format.encoding), format.outer_block);
    }
    if (format.global_scale != GlobalScale::factor && format.global_scale != GlobalScale::divisor) {
        fail("{}.global_scale: expected factor or divisor, got the value {}", weight,
             static_cast<std::int32_t>(format.global_scale));
    }
}

std::span<const DType> scale_types(const WeightFormat& format) {
    static constexpr std::array single{DType::fp32};
    static constexpr std::array quantised{DType::uint8};
    static constexpr std::array powers{DType::uint8, DType::e8m0};
    static constexpr std::array squares{DType::fp32, DType::bf16, DType::e8m0};
    static constexpr std::array e4m3{DType::e4m3};
    static constexpr std::array bf16{DType::bf16};
    static constexpr std::array groups{DType::bf16, DType::fp16, DType::fp32};
    switch (format.encoding) {
        case Encoding::nf4:
        case Encoding::fp4:
            return format.outer_block > 0 ? std::span<const DType>(quantised) : single;
        case Encoding::mxfp4:
        case Encoding::mxfp8:
            return powers;
        case Encoding::fp8:
            return format.arranged ? std::span<const DType>(single) : squares;
        case Encoding::nvfp4:
            return format.arranged ? std::span<const DType>(bf16) : e4m3;
        case Encoding::int4:
            return format.arranged ? std::span<const DType>(bf16) : groups;
        case Encoding::plain:
        case Encoding::int8:
            break;
    }
    return single;
}

void check_type(const char* argument, std::optional<DType> dtype, std::span<const DType> types) {
    if (dtype && std::find(types.begin(), types.end(), *dtype) != types.end()) return;
    std::string expected;
    for (const DType type : types) expected += fmt::format("{}{}", expected.empty() ? "" : " or ", name(type));
    fail("{}: expected {}, {}", argument, expected, dtype ? "got " + describe(*dtype) : "not given");
}

}  // namespace smlora::check
