// Sound calls of every operation, and the expectations on checks that several of them share.
#pragma once

#include "ops/validate.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace smlora::ops::test {

// E 4, K 24, N 40, R 5 (padded 8), top_k 2, T 3, M 6.
inline constexpr std::int64_t E = 4;
inline constexpr std::int64_t K = 24;
inline constexpr std::int64_t N = 40;
inline constexpr std::int64_t R = 5;
inline constexpr std::int64_t top_k = 2;
inline constexpr std::int64_t T = 3;
inline constexpr std::int64_t M = 6;

// Nothing is read or written by the checks.
alignas(256) inline char memory[256];

inline Tensor tensor(DType dtype, std::initializer_list<std::int64_t> shape) { return {memory, dtype, shape}; }
inline Tensor strided(DType dtype, std::initializer_list<std::int64_t> shape,
                      std::initializer_list<std::int64_t> strides) {
    return {memory, dtype, shape, strides};
}
inline Tensor without_memory(Tensor given) {
    given.data = nullptr;
    return given;
}

/// All types and flags differ from each other where they can, so that a check of the wrong one is noticed.
inline Problem sound_problem() {
    Problem problem;
    problem.E = E;
    problem.K = K;
    problem.N = N;
    problem.R = R;
    problem.top_k = top_k;
    problem.dtype = DType::fp16;
    problem.adapter_dtype = DType::fp32;
    problem.gate_dtype = DType::fp32;
    problem.index_dtype = DType::int64;
    problem.y_rows = RowOrder::token;
    problem.bias = true;
    problem.gates = true;
    return problem;
}

inline Routing sound_routing() {
    return {tensor(DType::int64, {M}), tensor(DType::int64, {M}), tensor(DType::int64, {E})};
}
inline Tensor sound_gates() { return tensor(DType::fp32, {T, top_k}); }
inline Tensor sound_rank_rows() { return strided(DType::fp16, {M, R}, {8, 1}); }

/// An operation with sound arguments, and its check.
struct Route {
    Problem problem = sound_problem();
    RouteArgs args{tensor(DType::int32, {T, top_k}), sound_routing(), {}};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_route(problem, args, backend); }
};

struct Group {
    Problem problem = sound_problem();
    GroupArgs args{tensor(DType::fp16, {T, 7}), sound_gates(), sound_routing(), tensor(DType::fp16, {M, 7}), {}};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_group(problem, args, backend); }
};

struct Combine {
    Problem problem = sound_problem();
    CombineArgs args{tensor(DType::fp16, {M, 7}), sound_gates(), tensor(DType::fp16, {T, 7}), {}};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_combine(problem, args, backend); }
};

struct CombineBackward {
    Problem problem = sound_problem();
    CombineBackwardArgs args{tensor(DType::fp16, {T, 7}),
                             tensor(DType::fp16, {M, 7}),
                             sound_gates(),
                             tensor(DType::fp16, {M, 7}),
                             sound_gates(),
                             {}};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_combine_backward(problem, args, backend); }
};

struct Forward {
    Problem problem = sound_problem();
    ForwardArgs args{.x = tensor(DType::fp16, {T, K}),
                     .W = tensor(DType::fp16, {E, K, N}),
                     .A = tensor(DType::fp32, {E, R, K}),
                     .B = tensor(DType::fp32, {E, N, R}),
                     .bias = tensor(DType::fp16, {E, N}),
                     .gates = sound_gates(),
                     .routing = sound_routing(),
                     .scaling = 2.0F,
                     .y = tensor(DType::fp16, {T, N}),
                     .xa = sound_rank_rows(),
                     .workspace = {}};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_forward(problem, args, backend); }
};

struct BackwardInput {
    Problem problem = sound_problem();
    BackwardInputArgs args{.dy = tensor(DType::fp16, {T, N}),
                           .W = tensor(DType::fp16, {E, K, N}),
                           .A = tensor(DType::fp32, {E, R, K}),
                           .B = tensor(DType::fp32, {E, N, R}),
                           .gates = sound_gates(),
                           .routing = sound_routing(),
                           .scaling = 2.0F,
                           .dx = tensor(DType::fp16, {T, K}),
                           .yb = sound_rank_rows(),
                           .dgates = sound_gates(),
                           .x = tensor(DType::fp16, {T, K}),
                           .bias = tensor(DType::fp16, {E, N}),
                           .workspace = {}};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_backward_input(problem, args, backend); }
};

struct BackwardLora {
    Problem problem = sound_problem();
    BackwardLoraArgs args{.x = tensor(DType::fp16, {T, K}),
                          .dy = tensor(DType::fp16, {T, N}),
                          .A = tensor(DType::fp32, {E, R, K}),
                          .B = tensor(DType::fp32, {E, N, R}),
                          .gates = sound_gates(),
                          .routing = sound_routing(),
                          .scaling = 2.0F,
                          .xa = sound_rank_rows(),
                          .yb = sound_rank_rows(),
                          .dA = tensor(DType::fp32, {E, R, K}),
                          .dB = tensor(DType::fp32, {E, N, R}),
                          .workspace = {}};
    Backend backend = Backend::cpu;
    std::int64_t validate() const { return validate_backward_lora(problem, args, backend); }
};

template <class Call>
struct Case {
    std::string message;
    std::function<void(Call&)> change;
};

template <class Call>
void expect_refused(const std::vector<Case<Call>>& cases, ErrorCode code = ErrorCode::invalid_argument) {
    for (const Case<Call>& wrong : cases) {
        Call call;
        wrong.change(call);
        try {
            call.validate();
            ADD_FAILURE() << "not refused: " << wrong.message;
        } catch (const Error& error) {
            EXPECT_EQ(error.what(), wrong.message);
            EXPECT_EQ(error.code(), code) << wrong.message;
        }
    }
}

template <class Call>
void expect_taken(const std::vector<Case<Call>>& cases, std::int64_t tokens = T) {
    for (const Case<Call>& sound : cases) {
        Call call;
        sound.change(call);
        try {
            EXPECT_EQ(call.validate(), tokens) << sound.message;
        } catch (const Error& error) {
            ADD_FAILURE() << sound.message << " was refused: " << error.what();
        }
    }
}

/// What is checked alike wherever it stands: one tensor that is missing, of the wrong type, of the wrong shape and
/// without memory.
template <class Call>
std::vector<Case<Call>> wrong_tensors(const std::string& argument, const std::function<Tensor&(Call&)>& of,
                                      const std::string& shape, const std::string& dtype, bool required = true) {
    const std::string extents = shape.substr(shape.find("= ") + 2);
    Call sound;
    Tensor longer = of(sound);
    longer.shape[static_cast<std::size_t>(longer.ndim - 1)] += 1;
    Tensor flat = tensor(of(sound).dtype, {1, 2, 3, 4});
    const std::string longer_text =
        fmt::format("[{}]", fmt::join(longer.shape.begin(), longer.shape.begin() + longer.ndim, ", "));
    std::vector<Case<Call>> cases{
        {argument + ": expected " + dtype + ", got int32", [of](Call& call) { of(call).dtype = DType::int32; }},
        {argument + ": expected " + shape + ", got " + longer_text, [of, longer](Call& call) { of(call) = longer; }},
        {argument + ": expected " + shape + ", got [1, 2, 3, 4]", [of, flat](Call& call) { of(call) = flat; }},
        {argument + ": expected memory for shape " + extents + ", got a null pointer",
         [of](Call& call) { of(call).data = nullptr; }},
    };
    if (required) {
        cases.push_back(
            {argument + ": expected " + shape + " of " + dtype + ", not given", [of](Call& call) { of(call) = {}; }});
    }
    return cases;
}

template <class Call>
void expect_routing_checked() {
    expect_refused(wrong_tensors<Call>(
        "routing.sorted_scattered_idxs", [](Call& c) -> Tensor& { return c.args.routing.sorted_scattered_idxs; },
        "[M] = [6]", "int64"));
    expect_refused(wrong_tensors<Call>(
        "routing.expert_offsets", [](Call& c) -> Tensor& { return c.args.routing.expert_offsets; }, "[E] = [4]",
        "int64"));
    expect_refused(wrong_tensors<Call>(
        "routing.sorted_expert_idxs", [](Call& c) -> Tensor& { return c.args.routing.sorted_expert_idxs; }, "[M] = [6]",
        "int64", false));
    expect_refused<Call>({{"routing.expert_offsets: expected a contiguous tensor, got strides [2] for shape [4]",
                           [](Call& c) { c.args.routing.expert_offsets.strides[0] = 2; }},
                          {"routing.sorted_scattered_idxs: expected a contiguous tensor, got strides [0] for shape [6]",
                           [](Call& c) { c.args.routing.sorted_scattered_idxs.strides[0] = 0; }}});
}

template <class Call>
void expect_gates_checked() {
    expect_refused(wrong_tensors<Call>(
        "gates", [](Call& c) -> Tensor& { return c.args.gates; }, "[T, top_k] = [3, 2]", "fp32", false));
    expect_refused<Call>({{"gates: expected a contiguous tensor, got strides [3, 1] for shape [3, 2]",
                           [](Call& c) { c.args.gates.strides[0] = 3; }}});
}

template <class Call>
void expect_problem_checked() {
    expect_refused<Call>({{"problem.E: expected 1 to 1024, got 0", [](Call& c) { c.problem.E = 0; }}});
    expect_refused<Call>(
        {{"problem.dtype: expected bf16, fp16 or fp32 on the CUDA backend, got fp64 (CPU backend only)",
          [](Call& c) {
              c.problem.dtype = DType::fp64;
              c.backend = Backend::cuda;
          }}},
        ErrorCode::unsupported);
}

template <class Call>
void expect_scaling_checked() {
    expect_refused<Call>(
        {{"scaling: expected a finite number, got nan", [](Call& c) { c.args.scaling = std::nanf(""); }},
         {"scaling: expected a finite number, got inf",
          [](Call& c) { c.args.scaling = std::numeric_limits<float>::infinity(); }}});
}

/// Rows of one side, [T, columns] in the sound call.
template <class Call>
void expect_rows_checked(const std::string& argument, const std::function<Tensor&(Call&)>& of,
                         const std::string& shape) {
    expect_refused(wrong_tensors<Call>(argument, of, shape, "fp16"));
    Call sound;
    const std::string extents = fmt::format("[{}, {}]", of(sound).shape[0], of(sound).shape[1]);
    expect_refused<Call>(
        {{argument + ": expected contiguous columns, got strides [100, 2] for shape " + extents,
          [of](Call& c) {
              of(c).strides[0] = 100;
              of(c).strides[1] = 2;
          }},
         {argument + ": expected a row stride no smaller than the row, got strides [1, 1] for shape " + extents,
          [of](Call& c) { of(c).strides[0] = 1; }},
         {argument + ": expected strides of 0 or more, got strides [-100, 1] for shape " + extents,
          [of](Call& c) { of(c).strides[0] = -100; }},
         {argument + ": expected less than 2^63 bytes, got strides [4611686018427387904, 1] for shape " + extents,
          [of](Call& c) { of(c).strides[0] = std::int64_t{1} << 62; }}});
    expect_taken<Call>({{"a gap between rows", [of](Call& c) { of(c).strides[0] += 13; }}});
}

/// The first tensor of a call tells T; its own checks are worded without it.
template <class Call>
void expect_first_rows_checked(const std::string& argument, const std::function<Tensor&(Call&)>& of) {
    expect_refused<Call>(
        {{argument + ": expected [T, columns] of fp16, not given", [of](Call& c) { of(c) = {}; }},
         {argument + ": expected [T, columns], got [3]", [of](Call& c) { of(c) = tensor(DType::fp16, {3}); }},
         {argument + ": expected [T, columns], got [-3, 24]",
          [of](Call& c) {
              of(c) = tensor(DType::fp16, {-3, 24});
          }},
         {argument + ": expected fp16, got bf16", [of](Call& c) { of(c).dtype = DType::bf16; }},
         {argument + ": expected fp16, got the value 77", [of](Call& c) { of(c).dtype = static_cast<DType>(77); }}});
}

}  // namespace smlora::ops::test
