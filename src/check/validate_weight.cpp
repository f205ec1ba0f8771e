// Weights, plain and quantised.
#include "check/overlap.hpp"
#include "check/validate.hpp"
#include "check/validate_tensor.hpp"
#include "describe.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>

namespace smlora::check {
namespace {

template <class... Arguments>
[[noreturn, gnu::cold]] void fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    throw Error(ErrorCode::invalid_argument, fmt::format(format, std::forward<Arguments>(arguments)...));
}

/// What kernels count rows, columns and experts in.
constexpr std::int64_t most_extent = std::numeric_limits<std::int32_t>::max();

std::int64_t quotient_up(std::int64_t value, std::int64_t divisor) { return (value + divisor - 1) / divisor; }

/// That it is of one of these types, whose order is that of the message.
void check_type(const char* argument, const Tensor& tensor, std::initializer_list<DType> types) {
    if (std::find(types.begin(), types.end(), tensor.dtype) != types.end() && tensor.given()) return;
    std::string expected;
    for (const DType type : types) expected += fmt::format("{}{}", expected.empty() ? "" : " or ", name(type));
    fail("{}: expected {}, {}", argument, expected, tensor.given() ? "got " + describe(tensor.dtype) : "not given");
}

class Check {
 public:
    explicit Check(const Weight& weight) : weight_(weight), E_{"E", weight.E}, rows_{"rows", weight.rows} {}

    void run() const {
        (void)name(weight_.encoding);
        for (const auto& [what, value] :
             {std::pair{"E", weight_.E}, {"rows", weight_.rows}, {"columns", weight_.columns}}) {
            if (value < 1 || value > most_extent) {
                fail("weight.{}: expected 1 to {}, got {}", what, most_extent, value);
            }
        }
        std::int64_t values = weight_.rows * weight_.columns;
        if (__builtin_mul_overflow(values, weight_.E, &values)) {
            fail("weight: expected E rows columns below 2^63, got {} {} {}", weight_.E, weight_.rows, weight_.columns);
        }
        if (weight_.parts < 1 || weight_.rows % weight_.parts != 0) {
            fail("weight.parts: expected a divisor of rows = {}, got {}", weight_.rows, weight_.parts);
        }
        codes_and_scales();
        if (!is_bitsandbytes()) {
            check_absent("weight.table", weight_.table, reason());
            check_absent("weight.double_quantization.scales", weight_.double_quantization.scales, reason());
        }
        if (weight_.encoding != Encoding::nvfp4) {
            check_absent("weight.global_scales", weight_.global_scales, reason());
        }
    }

 private:
    [[nodiscard]] bool is_bitsandbytes() const {
        return weight_.encoding == Encoding::nf4 || weight_.encoding == Encoding::fp4;
    }
    /// Of what is not given; made without an allocation.
    [[nodiscard]] const char* reason() const {
        constexpr std::array reasons{"with encoding plain", "with encoding nf4",   "with encoding fp4",
                                     "with encoding int8",  "with encoding mxfp4", "with encoding fp8",
                                     "with encoding mxfp8", "with encoding nvfp4", "with encoding int4"};
        return reasons[static_cast<std::size_t>(weight_.encoding)];
    }

    void codes_and_scales() const {
        switch (weight_.encoding) {
            case Encoding::plain:
                check_type("weight.codes", weight_.codes, {DType::bf16, DType::fp16, DType::fp32, DType::fp64});
                check_tensor("weight.codes", weight_.codes, weight_.codes.dtype,
                             {E_, rows_, {"columns", weight_.columns}}, Strides::matrices);
                return check_absent("weight.scales", weight_.scales, reason());
            case Encoding::nf4:
            case Encoding::fp4:
                return bitsandbytes();
            case Encoding::int8:
                codes({DType::int8}, 1);
                return check_tensor("weight.scales", weight_.scales, DType::fp32, {E_, rows_}, Strides::contiguous);
            case Encoding::mxfp4:
                block_is(32);
                if (weight_.codes.ndim == 4) {
                    check_type("weight.codes", weight_.codes, {DType::uint8, DType::int8});
                    check_tensor("weight.codes", weight_.codes, weight_.codes.dtype,
                                 {E_, rows_, {"columns / 32", weight_.columns / 32}, {"16", 16}}, Strides::contiguous);
                } else {
                    codes({DType::uint8, DType::int8}, 2);
                }
                return scales({DType::uint8, DType::e8m0});
            case Encoding::fp8:
                return fp8();
            case Encoding::mxfp8:
                block_is(32);
                codes({DType::e4m3}, 1);
                return scales({DType::uint8, DType::e8m0});
            case Encoding::nvfp4:
                block_is(16);
                codes({DType::uint8}, 2);
                scales({DType::e4m3});
                if (weight_.global_scale != GlobalScale::factor && weight_.global_scale != GlobalScale::divisor) {
                    fail("weight.global_scale: expected factor or divisor, got the value {}",
                         static_cast<std::int32_t>(weight_.global_scale));
                }
                return check_tensor("weight.global_scales", weight_.global_scales, DType::fp32,
                                    {E_, {"parts", weight_.parts}}, Strides::any);
            case Encoding::int4:
                if (weight_.block < 2 || weight_.block % 2 != 0) {
                    fail("weight.block: expected an even number above 0 for int4, got {}", weight_.block);
                }
                divides();
                if (weight_.codes.dtype == DType::int32) {
                    if (weight_.columns % 8 != 0) {
                        fail("weight.columns: expected a multiple of 8 for codes of int32, got {}", weight_.columns);
                    }
                    codes({DType::int32}, 8);
                } else {
                    codes({DType::uint8, DType::int32}, 2);
                }
                return scales({DType::bf16, DType::fp16, DType::fp32});
        }
    }

    void bitsandbytes() const {
        const std::int64_t block = weight_.block;
        if (block < 32 || block > 4096 || (block & (block - 1)) != 0) {
            fail("weight.block: expected a power of two from 32 to 4096 for {}, got {}", name(weight_.encoding), block);
        }
        const std::int64_t values = weight_.E * weight_.rows * weight_.columns;
        check_elements("weight.codes", weight_.codes, DType::uint8,
                       {"ceil(E rows columns / 2)", quotient_up(values, 2)});
        check_tensor("weight.table", weight_.table, DType::fp32, {{"16", 16}}, Strides::contiguous);
        const DoubleQuantization& outer = weight_.double_quantization;
        const std::int64_t count = quotient_up(values, block);
        check_elements("weight.scales", weight_.scales, outer.given() ? DType::uint8 : DType::fp32,
                       {"ceil(E rows columns / block)", count});
        if (!outer.given()) return;
        if (outer.block < 1) fail("weight.double_quantization.block: expected 1 or more, got {}", outer.block);
        check_elements("weight.double_quantization.scales", outer.scales, DType::fp32,
                       {"ceil(scales / block)", quotient_up(count, outer.block)});
        check_tensor("weight.double_quantization.table", outer.table, DType::fp32, {{"256", 256}}, Strides::contiguous);
        check_elements("weight.double_quantization.offset", outer.offset, DType::fp32, {"one", 1});
    }

    void fp8() const {
        if (weight_.block < 1) fail("weight.block: expected 1 or more for fp8, got {}", weight_.block);
        codes({DType::e4m3}, 1);
        check_type("weight.scales", weight_.scales, {DType::fp32, DType::bf16, DType::e8m0});
        check_tensor("weight.scales", weight_.scales, weight_.scales.dtype,
                     {E_,
                      {"parts ceil(rows / parts / block)",
                       weight_.parts * quotient_up(weight_.rows / weight_.parts, weight_.block)},
                      {"ceil(columns / block)", quotient_up(weight_.columns, weight_.block)}},
                     Strides::contiguous);
    }

    void block_is(std::int64_t block) const {
        if (weight_.block != block) {
            fail("weight.block: expected {} for {}, got {}", block, name(weight_.encoding), weight_.block);
        }
        divides();
    }

    void divides() const {
        if (weight_.columns % weight_.block != 0) {
            fail("weight.block: expected a divisor of columns = {}, got {}", weight_.columns, weight_.block);
        }
    }

    /// `packed` codes in an element.
    void codes(std::initializer_list<DType> types, std::int64_t packed) const {
        constexpr std::array symbols{"", "columns", "columns / 2", "", "", "", "", "", "columns / 8"};
        check_type("weight.codes", weight_.codes, types);
        check_tensor("weight.codes", weight_.codes, weight_.codes.dtype,
                     {E_, rows_, {symbols[static_cast<std::size_t>(packed)], weight_.columns / packed}},
                     Strides::contiguous);
    }

    /// One for each block of a row.
    void scales(std::initializer_list<DType> types) const {
        check_type("weight.scales", weight_.scales, types);
        check_tensor("weight.scales", weight_.scales, weight_.scales.dtype,
                     {E_, rows_, {"columns / block", weight_.columns / weight_.block}}, Strides::contiguous);
    }

    const Weight& weight_;
    Extent E_, rows_;
};

}  // namespace

void validate_dequantize(const DequantizeArgs& args) {
    const Weight& weight = args.weight;
    Check(weight).run();
    if (weight.encoding == Encoding::plain) fail("weight.encoding: expected one that is quantised, got plain");
    check_type("out", args.out, {DType::bf16, DType::fp16, DType::fp32});
    check_tensor("out", args.out, args.out.dtype, {{"E", weight.E}, {"rows", weight.rows}, {"columns", weight.columns}},
                 Strides::contiguous);
    check_apart({{"out", args.out}}, {{"weight.codes", weight.codes},
                                      {"weight.scales", weight.scales},
                                      {"weight.table", weight.table},
                                      {"weight.double_quantization.scales", weight.double_quantization.scales},
                                      {"weight.double_quantization.table", weight.double_quantization.table},
                                      {"weight.double_quantization.offset", weight.double_quantization.offset},
                                      {"weight.global_scales", weight.global_scales}});
}

}  // namespace smlora::check

void smlora::validate(const Weight& weight) { check::Check(weight).run(); }
