// Weights, plain and quantised.
#include "check/fail.hpp"
#include "check/overlap.hpp"
#include "check/validate.hpp"
#include "check/validate_common.hpp"
#include "check/validate_tensor.hpp"
#include "check/weight_format.hpp"
#include "scale_order.hpp"

#include <array>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <utility>

namespace smlora::check {
namespace {

/// What kernels count rows, columns and experts in.
constexpr std::int64_t most_extent = std::numeric_limits<std::int32_t>::max();

std::int64_t quotient_up(std::int64_t value, std::int64_t divisor) { return (value + divisor - 1) / divisor; }

/// That a tensor is of one of these types.
void check_type_of(const char* argument, const Tensor& tensor, std::span<const DType> types) {
    check_type(argument, tensor.given() ? std::optional(tensor.dtype) : std::nullopt, types);
}
void check_type_of(const char* argument, const Tensor& tensor, std::initializer_list<DType> types) {
    check_type_of(argument, tensor, std::span(types.begin(), types.size()));
}

/// That a tensor has the shape of the weight's arranged scales.
void check_arranged(const char* argument, const Tensor& tensor, const Weight& weight) {
    const WeightFormat format = format_of(weight);
    const std::array shape = arranged_shape(format, weight.E, weight.rows, weight.columns);
    check_tensor(argument, tensor, arranged_format(format).scales,
                 {{"E", shape[0]},
                  {"rows rounded up to 256 / 64", shape[1]},
                  {"columns rounded up to 256 / 64", shape[2]},
                  {"elements for 64 x 64 values", shape[3]}},
                 Strides::contiguous);
}

/// Of a weight whose format was checked: its extents and its tensors.
class Check {
 public:
    explicit Check(const Weight& weight)
        : weight_(weight), format_(format_of(weight)), E_{"E", weight.E}, rows_{"rows", weight.rows} {}

    void run() const {
        (void)name(weight_.encoding);
        for (const auto& [what, value] :
             {std::pair{"E", weight_.E}, {"rows", weight_.rows}, {"columns", weight_.columns}}) {
            if (value < 1 || value > most_extent) fail("W.{}: expected 1 to {}, got {}", what, most_extent, value);
        }
        std::int64_t values = weight_.rows * weight_.columns;
        if (__builtin_mul_overflow(values, weight_.E, &values)) {
            fail("W: expected E rows columns below 2^63, got {} {} {}", weight_.E, weight_.rows, weight_.columns);
        }
        check_format("W", format_, weight_.rows, weight_.columns);
        tensors();
        if (!is_bitsandbytes()) {
            check_absent("W.table", weight_.table, reason());
            check_absent("W.double_quantization.scales", weight_.double_quantization.scales, reason());
        }
        if (weight_.encoding != Encoding::nvfp4) check_absent("W.global_scales", weight_.global_scales, reason());
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

    void tensors() const {
        switch (weight_.encoding) {
            case Encoding::plain:
                return;
            case Encoding::nf4:
            case Encoding::fp4:
                return bitsandbytes();
            case Encoding::int8:
                codes({DType::int8}, 1);
                return scales({E_, rows_});
            case Encoding::mxfp4:
                mxfp4_codes();
                return block_scales();
            case Encoding::fp8:
                codes({DType::e4m3}, 1);
                if (format_.arranged) return arranged();
                return scales({E_,
                               {"parts ceil(rows / parts / block)",
                                weight_.parts * quotient_up(weight_.rows / weight_.parts, weight_.block)},
                               {"ceil(columns / block)", quotient_up(weight_.columns, weight_.block)}});
            case Encoding::mxfp8:
                codes({DType::e4m3}, 1);
                return block_scales();
            case Encoding::nvfp4:
                codes({DType::uint8}, 2);
                block_scales();
                return check_tensor("W.global_scales", weight_.global_scales, DType::fp32,
                                    {E_, {"parts", weight_.parts}}, Strides::any);
            case Encoding::int4:
                int4_codes();
                return block_scales();
        }
    }

    void bitsandbytes() const {
        const std::int64_t values = weight_.E * weight_.rows * weight_.columns;
        check_elements("W.codes", weight_.codes, DType::uint8, {"ceil(E rows columns / 2)", quotient_up(values, 2)});
        check_tensor("W.table", weight_.table, DType::fp32, {{"16", 16}}, Strides::contiguous);
        const DoubleQuantization& outer = weight_.double_quantization;
        const std::int64_t count = quotient_up(values, weight_.block);
        if (format_.arranged) return arranged();
        check_elements("W.scales", weight_.scales, outer.given() ? DType::uint8 : DType::fp32,
                       {"ceil(E rows columns / block)", count});
        if (!outer.given()) return;
        if (outer.block < 1) fail("W.double_quantization.block: expected 1 or more, got {}", outer.block);
        check_elements("W.double_quantization.scales", outer.scales, DType::fp32,
                       {"ceil(scales / block)", quotient_up(count, outer.block)});
        check_tensor("W.double_quantization.table", outer.table, DType::fp32, {{"256", 256}}, Strides::contiguous);
        check_elements("W.double_quantization.offset", outer.offset, DType::fp32, {"one", 1});
    }

    void mxfp4_codes() const {
        if (weight_.codes.ndim != 4) return codes({DType::uint8, DType::int8}, 2);
        check_type_of("W.codes", weight_.codes, {DType::uint8, DType::int8});
        check_tensor("W.codes", weight_.codes, weight_.codes.dtype,
                     {E_, rows_, {"columns / 32", weight_.columns / 32}, {"16", 16}}, Strides::contiguous);
    }

    void int4_codes() const {
        if (weight_.codes.dtype != DType::int32) return codes({DType::uint8, DType::int32}, 2);
        if (weight_.columns % 8 != 0) {
            fail("W.columns: expected a multiple of 8 for codes of int32, got {}", weight_.columns);
        }
        codes({DType::int32}, 8);
    }

    /// `packed` codes in an element.
    void codes(std::initializer_list<DType> types, std::int64_t packed) const {
        constexpr std::array symbols{"", "columns", "columns / 2", "", "", "", "", "", "columns / 8"};
        check_type_of("W.codes", weight_.codes, types);
        check_tensor("W.codes", weight_.codes, weight_.codes.dtype,
                     {E_, rows_, {symbols[static_cast<std::size_t>(packed)], weight_.columns / packed}},
                     Strides::contiguous);
    }

    void scales(std::initializer_list<Extent> shape) const {
        check_type_of("W.scales", weight_.scales, scale_types(format_));
        check_tensor("W.scales", weight_.scales, weight_.scales.dtype, shape, Strides::contiguous);
    }

    /// One for each block of a row.
    void block_scales() const {
        if (format_.arranged) return arranged();
        scales({E_, rows_, {"columns / block", weight_.columns / weight_.block}});
    }

    void arranged() const {
        check_type_of("W.scales", weight_.scales, scale_types(format_));
        check_arranged("W.scales", weight_.scales, weight_);
        check_absent("W.double_quantization.scales", weight_.double_quantization.scales, "with arranged scales");
    }

    const Weight& weight_;
    WeightFormat format_;
    Extent E_, rows_;
};

/// That an extent of W is the problem's.
void check_extent(const char* member, std::int64_t value, const char* symbol, std::int64_t expected) {
    if (value != expected) fail("W.{}: expected {} = {} (problem), got {}", member, symbol, expected, value);
}

void check_format_is(const WeightFormat& format, const WeightFormat& expected) {
    if (format == expected) return;
    if (format.encoding == expected.encoding && format.scales != expected.scales) {
        fail("W.scales: expected {} (problem.weights.scales), got {}", name(expected.scales), name(format.scales));
    }
    fail("W: expected {} (problem.weights), got {}", to_string(expected), to_string(format));
}

}  // namespace

void check_weight(const Problem& problem, const Weight& W) {
    const bool enk = problem.weight_layout == WeightLayout::enk;
    const Extent rows = enk ? Extent{"N", problem.N} : Extent{"K", problem.K};
    const Extent columns = enk ? Extent{"K", problem.K} : Extent{"N", problem.N};
    // The type of scales that are not given says nothing.
    if (W.encoding == problem.weights.encoding && W.encoding != Encoding::plain && !W.scales.given()) {
        check_type_of("W.scales", W.scales, scale_types(problem.weights));
    }
    check_format_is(format_of(W), problem.weights);
    if (W.encoding == Encoding::plain) {
        return check_tensor("W", W.codes, problem.dtype, {{"E", problem.E}, rows, columns}, Strides::matrices);
    }
    check_extent("E", W.E, "E", problem.E);
    check_extent("rows", W.rows, rows.symbol, rows.value);
    check_extent("columns", W.columns, columns.symbol, columns.value);
    Check(W).run();
}

void validate_dequantize(const DequantizeArgs& args) {
    const Weight& W = args.W;
    Check(W).run();
    if (W.encoding == Encoding::plain) fail("W.encoding: expected one that is quantised, got plain");
    check_type_of("out", args.out, {DType::bf16, DType::fp16, DType::fp32});
    check_tensor("out", args.out, args.out.dtype, {{"E", W.E}, {"rows", W.rows}, {"columns", W.columns}},
                 Strides::contiguous);
    check_apart({{"out", args.out}}, W);
}

void validate_arrange_scales(const ArrangeScalesArgs& args) {
    const Weight& W = args.W;
    Check(W).run();
    const WeightFormat format = format_of(W);
    if (format.arranged) fail("W.scales: expected those of a checkpoint, got scales that are arranged already");
    check_can_be_arranged("W", format, W.rows, W.columns);
    if (W.encoding == Encoding::int4) check_type_of("W.scales", W.scales, {DType::bf16});
    check_arranged("out", args.out, W);
    check_apart({{"out", args.out}}, W);
}

}  // namespace smlora::check

void smlora::validate(const Weight& weight) { check::Check(weight).run(); }
