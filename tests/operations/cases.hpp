// The tables of cases that forward, backward_input and backward_lora are each put through.
#pragma once

#include "support/case.hpp"

#include <smlora/weight.hpp>

#include <fmt/format.h>

#include <string>
#include <utility>

namespace smlora::test {

inline Problem with(Problem problem, WeightLayout layout) {
    problem.weight_layout = layout;
    return problem;
}
inline Problem with_adapter(Problem problem, DType dtype) {
    problem.adapter_dtype = dtype;
    return problem;
}
inline Problem with_gates(Problem problem, DType dtype) {
    problem.gates = true;
    problem.gate_dtype = dtype;
    return problem;
}
inline Problem with_bias(Problem problem) {
    problem.bias = true;
    return problem;
}
inline Problem with_index(Problem problem, DType dtype) {
    problem.index_dtype = dtype;
    return problem;
}

/// One of everything, small enough for compute-sanitizer: --gtest_filter='Small*'.
inline Cases small_cases() {
    using enum RowOrder;
    const Problem aligned = shape(4, 96, 80, 16, 2);
    const Problem odd = shape(4, 37, 53, 5, 2);
    const Problem everything = with_bias(with_gates(with_rows(aligned, token, token), DType::fp32));
    return {
        {.name = "aligned", .problem = aligned, .T = 24},
        {.name = "weight_enk", .problem = with(aligned, WeightLayout::enk), .T = 24},
        {.name = "fp16", .problem = shape(4, 96, 80, 16, 2, DType::fp16), .T = 24},
        {.name = "fp32", .problem = shape(4, 96, 80, 16, 2, DType::fp32), .T = 24},
        {.name = "fp32_odd", .problem = shape(4, 37, 53, 5, 2, DType::fp32), .T = 24},
        {.name = "odd", .problem = odd, .T = 24},
        {.name = "odd_enk", .problem = with(odd, WeightLayout::enk), .T = 24, .left_out = 0.3},
        {.name = "fp32_adapter", .problem = with_adapter(aligned, DType::fp32), .T = 24},
        {.name = "gates_and_bias", .problem = everything, .T = 24, .left_out = 0.3},
        {.name = "grouped", .problem = with_rows(aligned, grouped, grouped), .T = 24, .left_out = 0.3},
        {.name = "scattered", .problem = with_rows(aligned, scattered, scattered), .T = 24, .left_out = 0.3},
        {.name = "misaligned", .problem = aligned, .T = 24, .row_gap = 1, .shift = 1},
        {.name = "one_expert", .problem = aligned, .T = 70, .choice = Choice::one_expert},
        {.name = "one_token", .problem = aligned, .T = 1},
        {.name = "no_token", .problem = aligned, .T = 0},
        {.name = "rank_256", .problem = shape(2, 40, 48, 256, 1), .T = 20},
    };
}

inline Cases rank_cases() {
    Cases cases;
    for (const std::int64_t R : {1, 2, 3, 4, 5, 8, 16, 17, 32, 64, 128, 256}) {
        cases.push_back({.name = fmt::format("bf16_R{}", R), .problem = shape(4, 96, 80, R, 2), .T = 48});
    }
    for (const std::int64_t R : {3, 16, 100}) {
        cases.push_back({.name = fmt::format("fp16_R{}", R), .problem = shape(4, 96, 80, R, 2, DType::fp16), .T = 48});
        cases.push_back({.name = fmt::format("fp32_R{}", R), .problem = shape(4, 96, 80, R, 2, DType::fp32), .T = 48});
        cases.push_back({.name = fmt::format("fp32_adapter_R{}", R),
                         .problem = with_adapter(shape(4, 96, 80, R, 2), DType::fp32),
                         .T = 48});
    }
    return cases;
}

inline Cases width_cases() {
    constexpr std::pair<std::int64_t, std::int64_t> widths[] = {{37, 53}, {100, 80}, {96, 100}, {53, 37},  {8, 8},
                                                                {7, 300}, {300, 7},  {1, 64},   {130, 264}};
    Cases cases;
    for (const auto& [K, N] : widths) {
        for (const WeightLayout layout : {WeightLayout::ekn, WeightLayout::enk}) {
            cases.push_back({.name = fmt::format("K{}_N{}_{}", K, N, name(layout)),
                             .problem = with(shape(4, K, N, 8, 2), layout),
                             .T = 48});
        }
    }
    for (const DType dtype : {DType::fp16, DType::fp32}) {
        for (const WeightLayout layout : {WeightLayout::ekn, WeightLayout::enk}) {
            const std::string suffix = fmt::format("{}_{}", name(dtype), name(layout));
            cases.push_back(
                {.name = "K37_N53_" + suffix, .problem = with(shape(4, 37, 53, 8, 2, dtype), layout), .T = 48});
            cases.push_back(
                {.name = "K128_N72_" + suffix, .problem = with(shape(4, 128, 72, 8, 2, dtype), layout), .T = 48});
        }
    }
    return cases;
}

inline Cases routing_cases() {
    using enum RowOrder;
    const Problem p = shape(8, 96, 80, 16, 2);
    const Problem summed = with_rows(p, token, token);
    return {
        {.name = "one_expert_in_all", .problem = shape(1, 96, 80, 16, 1), .T = 100},
        {.name = "top_1", .problem = shape(8, 96, 80, 16, 1), .T = 100},
        {.name = "top_k_beyond_E", .problem = shape(3, 96, 80, 16, 64), .T = 5},
        {.name = "one_token", .problem = p, .T = 1},
        {.name = "no_token", .problem = p, .T = 0},
        {.name = "no_token_summed", .problem = summed, .T = 0},
        {.name = "everything_to_one_expert", .problem = p, .T = 300, .choice = Choice::one_expert},
        {.name = "skewed", .problem = shape(64, 96, 80, 16, 4), .T = 200, .choice = Choice::skewed},
        {.name = "skewed_gates",
         .problem = with_gates(with_rows(shape(64, 96, 80, 16, 4), grouped, token), DType::fp32),
         .T = 200,
         .choice = Choice::skewed,
         .left_out = 0.3},
        {.name = "some_left_out", .problem = p, .T = 100, .left_out = 0.4},
        {.name = "some_left_out_summed", .problem = summed, .T = 100, .left_out = 0.4},
        {.name = "all_left_out", .problem = p, .T = 20, .left_out = 2},
        {.name = "all_left_out_summed", .problem = summed, .T = 20, .left_out = 2},
        {.name = "all_left_out_grouped", .problem = with_rows(p, grouped, grouped), .T = 20, .left_out = 2},
        {.name = "a_thousand_experts", .problem = shape(1024, 40, 32, 4, 8), .T = 100},
        {.name = "int64_index", .problem = with_index(p, DType::int64), .T = 100, .left_out = 0.2},
        {.name = "int64_index_summed", .problem = with_index(summed, DType::int64), .T = 100, .left_out = 0.2},
    };
}

/// Rows of tokens that are more than half of a GPU's L2 together, none of the experts cut: gradients go span by span.
inline Cases many_token_cases() {
    using enum RowOrder;
    return {
        {.name = "x", .problem = shape(64, 2048, 72, 16, 2), .T = 8192},
        {.name = "dy_gates",
         .problem = with_gates(with_rows(shape(64, 72, 2048, 16, 2), grouped, token), DType::fp32),
         .T = 8192},
    };
}

inline Problem with_weights(Problem problem, WeightFormat format) {
    problem.weights = format;
    return problem;
}

/// Every encoding, in both layouts, and every kind of scale.
inline Cases quantised_cases() {
    using enum RowOrder;
    Cases cases;
    const auto add = [&](std::string name, Problem problem, const WeightFormat& format) {
        cases.push_back({.name = std::move(name), .problem = with_weights(problem, format), .T = 40, .left_out = 0.2});
    };
    const Problem p = shape(8, 96, 64, 16, 2);
    const Problem summed = with_bias(with_gates(with_rows(shape(8, 96, 160, 17, 3), token, token), DType::fp32));
    for (const Encoding encoding : {Encoding::nf4, Encoding::fp4, Encoding::int8, Encoding::mxfp4, Encoding::fp8,
                                    Encoding::mxfp8, Encoding::nvfp4, Encoding::int4}) {
        const WeightFormat format = usual_format(encoding);
        add(fmt::format("{}_ekn", name(encoding)), p, format);
        add(fmt::format("{}_enk_summed", name(encoding)), with(summed, WeightLayout::enk), format);
    }
    const auto add_enk = [&](std::string name, const WeightFormat& format) {
        add(std::move(name), with(with_rows(shape(5, 256, 192, 3, 2), grouped, grouped), WeightLayout::enk), format);
    };
    add_enk("nf4_double", {.encoding = Encoding::nf4, .scales = DType::uint8, .block = 128, .outer_block = 256});
    add_enk("mxfp4_uint8", {.encoding = Encoding::mxfp4, .scales = DType::uint8, .block = 32});
    add_enk("fp8_parts", {.encoding = Encoding::fp8, .scales = DType::bf16, .block = 128, .parts = 2});
    add_enk("nvfp4_divisor", {.encoding = Encoding::nvfp4,
                              .scales = DType::e4m3,
                              .block = 16,
                              .parts = 2,
                              .global_scale = GlobalScale::divisor});
    add_enk("int4_128", {.encoding = Encoding::int4, .scales = DType::fp16, .block = 128});
    // Blocks that go on in the next row, and rows that are no whole units of 16 bytes.
    add("nf4_odd", shape(3, 37, 53, 5, 2), usual_format(Encoding::nf4));
    add("nf4_odd_fp32", shape(3, 37, 53, 5, 2, DType::fp32), usual_format(Encoding::nf4));
    add("int8_fp16", shape(4, 96, 80, 16, 2, DType::fp16), usual_format(Encoding::int8));
    cases.push_back({.name = "mxfp4_one_token", .problem = with_weights(p, usual_format(Encoding::mxfp4)), .T = 1});
    cases.push_back({.name = "mxfp4_no_token", .problem = with_weights(p, usual_format(Encoding::mxfp4)), .T = 0});
    cases.push_back({.name = "nvfp4_one_expert",
                     .problem = with_weights(with_rows(p, token, token), usual_format(Encoding::nvfp4)),
                     .T = 70,
                     .choice = Choice::one_expert});
    cases.push_back({.name = "nf4_rank_256",
                     .problem = with_weights(shape(2, 64, 96, 256, 1), usual_format(Encoding::nf4)),
                     .T = 20});
    return cases;
}

inline Case packed_case(std::string name, const Problem& problem, std::int64_t T, Case more = {},
                        WeightFormat format = usual_format(Encoding::mxfp4)) {
    format = arranged_format(format);
    more.name = std::move(name);
    more.problem = with_weights(problem, format);
    more.T = T;
    return more;
}

inline WeightFormat int4_format(std::int64_t block) {
    return {.encoding = Encoding::int4, .scales = DType::bf16, .block = block};
}

inline WeightFormat nvfp4_format(GlobalScale global_scale, std::int64_t parts) {
    WeightFormat format = usual_format(Encoding::nvfp4);
    format.global_scale = global_scale;
    format.parts = parts;
    return format;
}

/// Weights whose scales are arranged for products that decode codes on the way: each reduction, order and part of an
/// output.
inline Cases packed_cases() {
    using enum RowOrder;
    const Problem p = with_rows(shape(3, 192, 320, 16, 2), grouped, grouped);
    const Problem summed = with_bias(with_gates(with_rows(shape(4, 160, 288, 17, 3), token, token), DType::fp32));
    return {
        packed_case("enk", with(p, WeightLayout::enk), 230),
        packed_case("ekn", p, 230),
        packed_case("enk_summed", with(summed, WeightLayout::enk), 60, {.left_out = 0.2}),
        packed_case("rank_64", with(shape(3, 128, 256, 64, 2), WeightLayout::enk), 50),
        packed_case("no_adapter", with(shape(2, 288, 96, 0, 1), WeightLayout::enk), 150),
        packed_case("int4_64_enk", with(p, WeightLayout::enk), 100, {}, int4_format(64)),
        packed_case("int4_32_ekn", p, 100, {}, int4_format(32)),
        packed_case("mxfp8_enk", with(p, WeightLayout::enk), 100, {}, usual_format(Encoding::mxfp8)),
        packed_case("fp8_ekn", p, 100, {}, usual_format(Encoding::fp8)),
        packed_case("nvfp4_enk", with(p, WeightLayout::enk), 100, {}, nvfp4_format(GlobalScale::factor, 1)),
        packed_case("nf4_ekn", p, 100, {}, usual_format(Encoding::nf4)),
    };
}

/// More of them, for which one kernel is enough.
inline Cases more_packed_cases() {
    using enum RowOrder;
    const Problem skewed = with_bias(with_rows(shape(4, 224, 544, 3, 2), scattered, token));
    const Problem wide_index = with_index(with(shape(3, 96, 352, 8, 2), WeightLayout::enk), DType::int64);
    return {
        packed_case("one_token", with_rows(shape(5, 96, 96, 1, 1), token, token), 1),
        packed_case("no_token", with_rows(shape(5, 96, 96, 1, 1), token, token), 0),
        packed_case("skewed", skewed, 70, {.choice = Choice::skewed}),
        packed_case("rank_33", with(shape(2, 128, 288, 33, 1), WeightLayout::enk), 90),
        packed_case("rank_256", shape(2, 128, 288, 256, 1), 40, {.choice = Choice::one_expert}),
        packed_case("int4_128_ekn", with_bias(with_rows(shape(3, 160, 384, 16, 2), scattered, token)), 70,
                    {.choice = Choice::skewed}, int4_format(128)),
        packed_case("int4_32_enk", with(shape(3, 160, 96, 17, 2), WeightLayout::enk), 70, {}, int4_format(32)),
        packed_case("mxfp8_ekn", with_bias(with_rows(shape(3, 96, 224, 17, 2), scattered, token)), 70,
                    {.choice = Choice::skewed}, usual_format(Encoding::mxfp8)),
        packed_case("fp8_enk", with(shape(3, 192, 224, 16, 2), WeightLayout::enk), 70, {.left_out = 0.2},
                    usual_format(Encoding::fp8)),
        packed_case("nvfp4_divisor_ekn", with_bias(with_rows(shape(3, 128, 320, 33, 2), scattered, token)), 70, {},
                    nvfp4_format(GlobalScale::divisor, 2)),
        packed_case("nf4_enk", with(shape(3, 192, 96, 3, 2), WeightLayout::enk), 70, {.choice = Choice::skewed},
                    usual_format(Encoding::nf4)),
        packed_case("fp4_128_ekn", shape(2, 160, 384, 16, 1), 40, {}, {.encoding = Encoding::fp4, .block = 128}),
        packed_case("all_left_out", wide_index, 50, {.left_out = 2}),
        // Decoded before: other types. Not on wgmma: a reduction that is too short.
        packed_case("fp16", with(shape(2, 96, 64, 8, 2, DType::fp16), WeightLayout::enk), 30),
        packed_case("short", with(shape(2, 32, 64, 8, 2), WeightLayout::enk), 30),
    };
}

/// Several tiles in every direction: rows of an expert, columns, the reduction, the rank.
inline Cases tile_cases() {
    using enum RowOrder;
    const Problem p = shape(3, 328, 600, 16, 2);
    const Problem tall = shape(2, 200, 392, 16, 2);
    const Problem wide = shape(5, 520, 264, 16, 2);
    Cases cases = {
        {.name = "ekn", .problem = p, .T = 150},
        {.name = "enk", .problem = with(p, WeightLayout::enk), .T = 150},
        {.name = "fp16", .problem = shape(3, 328, 600, 16, 2, DType::fp16), .T = 150},
        {.name = "tall", .problem = tall, .T = 430},
        {.name = "tall_enk", .problem = with(tall, WeightLayout::enk), .T = 430, .left_out = 0.2},
        {.name = "tall_one_expert", .problem = tall, .T = 333, .choice = Choice::one_expert},
        {.name = "wide_bias", .problem = with_bias(wide), .T = 60},
        {.name = "wide_grouped", .problem = with_rows(wide, grouped, grouped), .T = 60, .left_out = 0.3},
        {.name = "wide_gates",
         .problem = with_bias(with_gates(with_rows(wide, grouped, token), DType::fp32)),
         .T = 60,
         .left_out = 0.3},
        {.name = "wide_summed", .problem = with_rows(wide, token, token), .T = 60},
        {.name = "one_token", .problem = wide, .T = 1},
        {.name = "all_left_out", .problem = wide, .T = 20, .left_out = 2},
    };
    for (const std::int64_t R : {5, 24, 32, 48, 64, 72, 200}) {
        cases.push_back({.name = fmt::format("R{}", R), .problem = shape(3, 328, 520, R, 2), .T = 70});
        cases.push_back(
            {.name = fmt::format("R{}_enk", R), .problem = with(shape(3, 328, 520, R, 2), WeightLayout::enk), .T = 70});
    }
    return cases;
}

/// All pairs of row orders, with bias and with entries left out; gates where they are allowed.
inline Cases row_order_cases() {
    Cases cases;
    for (const RowOrder x : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
        for (const RowOrder y : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
            const Problem p = with_rows(shape(8, 96, 80, 16, 3), x, y);
            const std::string pair = fmt::format("{}_to_{}", name(x), name(y));
            cases.push_back({.name = pair, .problem = p, .T = 60});
            cases.push_back({.name = pair + "_bias", .problem = with_bias(p), .T = 60, .left_out = 0.2});
            if (y != RowOrder::token) continue;
            cases.push_back({.name = pair + "_gates", .problem = with_gates(p, DType::fp32), .T = 60, .left_out = 0.2});
            cases.push_back({.name = pair + "_bf16_gates_bias",
                             .problem = with_bias(with_gates(p, DType::bf16)),
                             .T = 60,
                             .left_out = 0.2});
        }
    }
    const Problem summed = with_rows(shape(8, 96, 80, 16, 3, DType::fp32), RowOrder::token, RowOrder::token);
    cases.push_back({.name = "fp32_gates_bias", .problem = with_bias(with_gates(summed, DType::fp32)), .T = 60});
    const Problem half = with_rows(shape(8, 96, 80, 16, 3, DType::fp16), RowOrder::token, RowOrder::token);
    cases.push_back({.name = "fp16_gates_bias", .problem = with_bias(with_gates(half, DType::fp16)), .T = 60});
    const Problem odd = with_rows(shape(8, 37, 53, 5, 3), RowOrder::token, RowOrder::token);
    cases.push_back({.name = "odd_gates_bias", .problem = with_bias(with_gates(odd, DType::fp32)), .T = 60});
    return cases;
}

/// How tensors lie in memory: strides of A and B, gaps between rows and matrices, bases off alignment.
inline Cases layout_cases() {
    const Problem p = shape(4, 96, 80, 16, 2);
    const Problem summed = with_rows(p, RowOrder::token, RowOrder::token);
    const Problem fp32 = shape(4, 96, 80, 16, 2, DType::fp32);
    const Problem enk = with(p, WeightLayout::enk);
    constexpr std::pair<const char*, AdapterLayout> adapters[] = {
        {"contiguous", AdapterLayout::contiguous}, {"peft", AdapterLayout::peft},
        {"transposed", AdapterLayout::transposed}, {"peft_transposed", AdapterLayout::peft_transposed},
        {"gapped", AdapterLayout::gapped},
    };
    Cases cases;
    for (const auto& [name, adapter] : adapters) {
        const std::string prefix = fmt::format("adapter_{}", name);
        cases.push_back({.name = prefix, .problem = p, .T = 48, .adapter = adapter});
        cases.push_back(
            {.name = prefix + "_fp32", .problem = with_adapter(p, DType::fp32), .T = 48, .adapter = adapter});
        cases.push_back({.name = prefix + "_odd", .problem = shape(4, 37, 53, 5, 2), .T = 48, .adapter = adapter});
    }
    cases.push_back({.name = "rows_apart", .problem = p, .T = 48, .row_gap = 8});
    cases.push_back({.name = "rows_apart_summed", .problem = summed, .T = 48, .row_gap = 24});
    cases.push_back({.name = "rows_off_alignment", .problem = p, .T = 48, .row_gap = 3});
    cases.push_back({.name = "rows_off_alignment_summed", .problem = summed, .T = 48, .row_gap = 1});
    cases.push_back({.name = "bases_off_alignment", .problem = p, .T = 48, .shift = 1});
    cases.push_back({.name = "bases_off_alignment_enk", .problem = enk, .T = 48, .shift = 3});
    cases.push_back({.name = "bases_8_bytes_off", .problem = p, .T = 48, .shift = 4});
    cases.push_back({.name = "bases_off_alignment_fp32", .problem = fp32, .T = 48, .row_gap = 1, .shift = 1});
    cases.push_back({.name = "matrices_apart", .problem = p, .T = 48, .expert_gap = 64});
    cases.push_back({.name = "matrices_off_alignment", .problem = enk, .T = 48, .expert_gap = 5});
    cases.push_back({.name = "negative_scaling", .problem = p, .T = 48, .scaling = -0.37F});
    return cases;
}

/// The CPU backend computes in fp64, too.
inline Cases double_cases() {
    using enum RowOrder;
    const Problem p = shape(4, 96, 80, 16, 2, DType::fp64);
    const Problem summed = with_rows(shape(4, 37, 53, 5, 3, DType::fp64), token, token);
    return {
        {.name = "aligned", .problem = p, .T = 48},
        {.name = "gates_bias_odd", .problem = with_bias(with_gates(summed, DType::fp64)), .T = 48, .left_out = 0.2},
        {.name = "fp32_adapter", .problem = with_adapter(p, DType::fp32), .T = 48},
    };
}

}  // namespace smlora::test
