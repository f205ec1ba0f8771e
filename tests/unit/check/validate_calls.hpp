// Sound calls of every operation, and the expectations on checks that several of them share.
#pragma once

#include "check/validate.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <sstream>
#include <string>

namespace smlora::check::test {

// E 4, K 24, N 40, R 5 (padded 8), top_k 2, T 3, M 6.
inline constexpr std::int64_t E = 4;
inline constexpr std::int64_t K = 24;
inline constexpr std::int64_t N = 40;
inline constexpr std::int64_t R = 5;
inline constexpr std::int64_t top_k = 2;
inline constexpr std::int64_t T = 3;
inline constexpr std::int64_t M = 6;

/// An address that no other call gives, a gigabyte from the next: nothing is read or written by the checks.
inline void* memory() {
    static std::uintptr_t last = 0;
    return reinterpret_cast<void*>(last += std::uintptr_t{1} << 30);
}

inline Tensor tensor(DType dtype, std::initializer_list<std::int64_t> shape) { return {memory(), dtype, shape}; }
inline Tensor strided(DType dtype, std::initializer_list<std::int64_t> shape,
                      std::initializer_list<std::int64_t> strides) {
    return {memory(), dtype, shape, strides};
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

/// Plain pointers: a hundred closures in std::function take a minute to compile under a sanitizer.
template <class Call>
struct Case {
    const char* message;
    void (*change)(Call&);
};

template <class... Parts>
std::string text(const Parts&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
}

inline std::string shape_text(const Tensor& view) {
    std::string all;
    for (std::int32_t i = 0; i < view.ndim; ++i) {
        all += text(i == 0 ? "" : ", ", view.shape[static_cast<std::size_t>(i)]);
    }
    return text("[", all, "]");
}

template <class Call>
using Argument = Tensor& (*)(Call&);

template <class Call>
void expect_message(const Call& call, const std::string& message, ErrorCode code = ErrorCode::invalid_argument) {
    try {
        call.validate();
        ADD_FAILURE() << "not refused: " << message;
    } catch (const Error& error) {
        EXPECT_EQ(error.what(), message);
        EXPECT_EQ(error.code(), code) << message;
    }
}

template <class Call>
void expect_refused(std::initializer_list<Case<Call>> cases, ErrorCode code = ErrorCode::invalid_argument) {
    for (const Case<Call>& wrong : cases) {
        Call call;
        wrong.change(call);
        expect_message(call, wrong.message, code);
    }
}

template <class Call>
void expect_taken(std::initializer_list<Case<Call>> cases, std::int64_t tokens = T) {
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

/// The call with this tensor in the place of the sound one.
template <class Call>
Call with(Argument<Call> of, const Tensor& replacement) {
    Call call;
    of(call) = replacement;
    return call;
}

/// What is checked alike wherever it stands: one tensor that is missing, of the wrong type, of the wrong shape and
/// without memory. `shape` reads "[symbols] = [values]".
template <class Call>
void expect_tensor_checked(const std::string& argument, Argument<Call> of, const std::string& shape,
                           const std::string& dtype, bool required = true) {
    Call sound;
    const Tensor tensor_given = of(sound);
    Tensor changed = tensor_given;
    changed.dtype = DType::int32;
    expect_message(with(of, changed), text(argument, ": expected ", dtype, ", got int32"));
    changed = tensor_given;
    changed.shape[static_cast<std::size_t>(changed.ndim - 1)] += 1;
    expect_message(with(of, changed), text(argument, ": expected ", shape, ", got ", shape_text(changed)));
    changed = tensor(tensor_given.dtype, {1, 2, 3, 4});
    expect_message(with(of, changed), text(argument, ": expected ", shape, ", got [1, 2, 3, 4]"));
    changed = tensor_given;
    changed.ndim = -1;
    expect_message(with(of, changed), text(argument, ": expected ", shape, ", got -1 extents"));
    changed = tensor_given;
    changed.data = static_cast<char*>(changed.data) + size_of(changed.dtype) / 2;
    expect_message(with(of, changed), text(argument, ": expected memory aligned to the ", size_of(changed.dtype),
                                           " bytes of ", dtype, ", got ", changed.data));
    changed = without_memory(tensor_given);
    expect_message(with(of, changed),
                   text(argument, ": expected memory for shape ", shape_text(changed), ", got a null pointer"));
    if (required) {
        expect_message(with(of, {}), text(argument, ": expected ", shape, " of ", dtype, ", not given"));
    }
}

template <class Call>
void expect_routing_checked() {
    expect_tensor_checked<Call>(
        "routing.sorted_scattered_idxs", [](Call& c) -> Tensor& { return c.args.routing.sorted_scattered_idxs; },
        "[M] = [6]", "int64");
    expect_tensor_checked<Call>(
        "routing.expert_offsets", [](Call& c) -> Tensor& { return c.args.routing.expert_offsets; }, "[E] = [4]",
        "int64");
    expect_tensor_checked<Call>(
        "routing.sorted_expert_idxs", [](Call& c) -> Tensor& { return c.args.routing.sorted_expert_idxs; }, "[M] = [6]",
        "int64", false);
    expect_refused<Call>({{"routing.expert_offsets: expected a contiguous tensor, got strides [2] for shape [4]",
                           [](Call& c) { c.args.routing.expert_offsets.strides[0] = 2; }},
                          {"routing.sorted_scattered_idxs: expected a contiguous tensor, got strides [0] for shape [6]",
                           [](Call& c) { c.args.routing.sorted_scattered_idxs.strides[0] = 0; }}});
}

template <class Call>
void expect_gates_checked() {
    expect_tensor_checked<Call>(
        "gates", [](Call& c) -> Tensor& { return c.args.gates; }, "[T, top_k] = [3, 2]", "fp32", false);
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
void expect_rows_checked(const std::string& argument, Argument<Call> of, const std::string& shape) {
    expect_tensor_checked<Call>(argument, of, shape, "fp16");
    Call sound;
    const Tensor rows = of(sound);
    auto expect_strides_refused = [&](std::int64_t row_stride, std::int64_t column_stride, const char* expected) {
        Tensor changed = rows;
        changed.strides = {row_stride, column_stride};
        expect_message(with(of, changed), text(argument, ": expected ", expected, ", got strides [", row_stride, ", ",
                                               column_stride, "] for shape ", shape_text(rows)));
    };
    expect_strides_refused(100, 2, "contiguous columns");
    expect_strides_refused(1, 1, "a row stride no smaller than the row");
    expect_strides_refused(-100, 1, "strides of 0 or more");
    expect_strides_refused(std::int64_t{1} << 62, 1, "less than 2^63 bytes");
    Tensor with_gaps = rows;
    with_gaps.strides[0] += 13;
    EXPECT_EQ(with(of, with_gaps).validate(), T);
}

/// The first tensor of a call tells T; its own checks are worded without it.
template <class Call>
void expect_first_rows_checked(const std::string& argument, Argument<Call> of) {
    expect_message(with(of, {}), argument + ": expected [T, columns] of fp16, not given");
    expect_message(with(of, tensor(DType::fp16, {3})), argument + ": expected [T, columns], got [3]");
    expect_message(with(of, tensor(DType::fp16, {-3, 24})), argument + ": expected [T, columns], got [-3, 24]");
    Call sound;
    Tensor changed = of(sound);
    changed.dtype = DType::bf16;
    expect_message(with(of, changed), argument + ": expected fp16, got bf16");
    changed.dtype = static_cast<DType>(77);
    expect_message(with(of, changed), argument + ": expected fp16, got the value 77");
}

}  // namespace smlora::check::test
