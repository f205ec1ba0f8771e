// forward, backward_input and backward_lora.
#include "check/overlap.hpp"
#include "check/validate.hpp"
#include "check/validate_common.hpp"
#include "check/validate_tensor.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <cmath>

namespace smlora::check {
namespace {

void check_scaling(float scaling) {
    if (!std::isfinite(scaling)) {
        throw Error(ErrorCode::invalid_argument, fmt::format("scaling: expected a finite number, got {}", scaling));
    }
}

/// x, dx, y or dy: rows of one side of the projection.
void check_side(const char* argument, const Tensor& tensor, const Problem& problem, RowOrder order, Extent columns,
                std::int64_t T, std::int64_t M) {
    const Extent rows = order == RowOrder::token ? Extent{"T", T} : Extent{"M", M};
    check_tensor(argument, tensor, problem.dtype, {rows, columns}, Strides::rows);
}

void check_a(const char* argument, const Tensor& A, const Problem& problem, Strides strides) {
    check_tensor(argument, A, problem.adapter_dtype, {{"E", problem.E}, {"R", problem.R}, {"K", problem.K}}, strides);
}

void check_b(const char* argument, const Tensor& B, const Problem& problem, Strides strides) {
    check_tensor(argument, B, problem.adapter_dtype, {{"E", problem.E}, {"N", problem.N}, {"R", problem.R}}, strides);
}

/// A, B and the rank rows that are written beside the product.
void check_adapter(const Tensor& A, const Tensor& B, const char* rank_rows_name, const Tensor& rank_rows,
                   const Problem& problem, std::int64_t M) {
    if (problem.R == 0) {
        constexpr const char* reason = "with problem.R = 0";
        check_absent("A", A, reason);
        check_absent("B", B, reason);
        check_absent(rank_rows_name, rank_rows, reason);
        return;
    }
    check_a("A", A, problem, Strides::any);
    check_b("B", B, problem, Strides::any);
    if (rank_rows.given()) check_rank_rows(rank_rows_name, rank_rows, problem, M);
}

void check_bias(const Tensor& bias, const Problem& problem, bool needed) {
    if (!problem.bias) {
        check_absent("bias", bias, "with problem.bias = false");
    } else if (needed || bias.given()) {
        check_tensor("bias", bias, problem.dtype, {{"E", problem.E}, {"N", problem.N}}, Strides::contiguous);
    }
}

void check_problem_gates(const Tensor& gates, const Problem& problem, std::int64_t T) {
    if (problem.gates) {
        check_gates("gates", gates, problem, T);
    } else {
        check_absent("gates", gates, "with problem.gates = false");
    }
}

void check_before_gates(const Problem& problem, const BackwardInputArgs& args) {
    if (!problem.gates || problem.x_rows == RowOrder::token) {
        throw Error(
            ErrorCode::invalid_argument,
            fmt::format("before_gates: expected false unless problem.gates is true and problem.x_rows is grouped "
                        "or scattered, got true with gates = {} and x_rows = {}",
                        problem.gates, name(problem.x_rows)));
    }
    if (problem.bias) {
        throw Error(
            ErrorCode::invalid_argument,
            "before_gates: expected false with problem.bias, as the bias has a part in the gradient of the gates; "
            "got true");
    }
    check_absent("gates", args.gates, "with before_gates");
    check_absent("dgates", args.dgates, "with before_gates");
}

}  // namespace

std::int64_t validate_forward(const Problem& problem, const ForwardArgs& args, Backend backend) {
    check_problem(problem, backend);
    check_scaling(args.scaling);
    const std::int64_t T = tokens_of_rows("x", args.x, problem.x_rows, problem);
    const std::int64_t M = check_rows(problem, T, backend);
    check_side("x", args.x, problem, problem.x_rows, {"K", problem.K}, T, M);
    check_weight(problem, args.W);
    check_adapter(args.A, args.B, "xa", args.xa, problem, M);
    check_bias(args.bias, problem, true);
    check_problem_gates(args.gates, problem, T);
    check_routing(problem, args.routing, M);
    check_side("y", args.y, problem, problem.y_rows, {"N", problem.N}, T, M);
    const Tensor xa = with_padding(args.xa, problem);
    const std::initializer_list<Operand> outputs{{"y", args.y}, {"xa", xa}, Operand(args.workspace)};
    check_apart(outputs, args.routing,
                {{"x", args.x}, {"A", args.A}, {"B", args.B}, {"bias", args.bias}, {"gates", args.gates}});
    check_apart(outputs, args.W);
    return T;
}

std::int64_t validate_backward_input(const Problem& problem, const BackwardInputArgs& args, Backend backend) {
    check_problem(problem, backend);
    check_scaling(args.scaling);
    const std::int64_t T = tokens_of_rows("dy", args.dy, problem.y_rows, problem);
    const std::int64_t M = check_rows(problem, T, backend);
    check_side("dy", args.dy, problem, problem.y_rows, {"N", problem.N}, T, M);
    check_weight(problem, args.W);
    check_adapter(args.A, args.B, "yb", args.yb, problem, M);
    if (args.before_gates) {
        check_before_gates(problem, args);
    } else {
        check_problem_gates(args.gates, problem, T);
    }
    check_routing(problem, args.routing, M);
    check_side("dx", args.dx, problem, problem.x_rows, {"K", problem.K}, T, M);
    const bool wants_dgates = args.dgates.given();
    if (wants_dgates) {
        if (!problem.gates) check_absent("dgates", args.dgates, "with problem.gates = false");
        check_gates("dgates", args.dgates, problem, T);
        check_given("x", args.x, "to compute dgates");
    }
    if (args.x.given()) check_side("x", args.x, problem, problem.x_rows, {"K", problem.K}, T, M);
    check_bias(args.bias, problem, wants_dgates);
    const Tensor yb = with_padding(args.yb, problem);
    const std::initializer_list<Operand> outputs{
        {"dx", args.dx}, {"yb", yb}, {"dgates", args.dgates}, Operand(args.workspace)};
    check_apart(
        outputs, args.routing,
        {{"dy", args.dy}, {"A", args.A}, {"B", args.B}, {"gates", args.gates}, {"x", args.x}, {"bias", args.bias}});
    check_apart(outputs, args.W);
    return T;
}

std::int64_t validate_backward_lora(const Problem& problem, const BackwardLoraArgs& args, Backend backend) {
    check_problem(problem, backend);
    check_scaling(args.scaling);
    if (problem.R == 0) {
        throw Error(ErrorCode::invalid_argument, "problem.R: expected 1 to 256 for backward_lora, got 0");
    }
    if (!args.dA.given() && !args.dB.given()) {
        throw Error(ErrorCode::invalid_argument, "dA, dB: expected at least one to be given, got neither");
    }
    const std::int64_t T = tokens_of_rows("x", args.x, problem.x_rows, problem);
    const std::int64_t M = check_rows(problem, T, backend);
    check_side("x", args.x, problem, problem.x_rows, {"K", problem.K}, T, M);
    check_side("dy", args.dy, problem, problem.y_rows, {"N", problem.N}, T, M);
    if (args.xa.given()) check_rank_rows("xa", args.xa, problem, M);
    if (args.yb.given()) check_rank_rows("yb", args.yb, problem, M);
    if (args.dB.given() && !args.xa.given()) check_given("A", args.A, "to compute dB without xa");
    if (args.A.given()) check_a("A", args.A, problem, Strides::any);
    if (args.dA.given() && !args.yb.given()) check_given("B", args.B, "to compute dA without yb");
    if (args.B.given()) check_b("B", args.B, problem, Strides::any);
    check_problem_gates(args.gates, problem, T);
    check_routing(problem, args.routing, M);
    if (args.dA.given()) check_a("dA", args.dA, problem, Strides::disjoint);
    if (args.dB.given()) check_b("dB", args.dB, problem, Strides::disjoint);
    const Tensor xa = with_padding(args.xa, problem);
    const Tensor yb = with_padding(args.yb, problem);
    check_apart(
        {{"dA", args.dA}, {"dB", args.dB}, Operand(args.workspace)}, args.routing,
        {{"x", args.x}, {"dy", args.dy}, {"A", args.A}, {"B", args.B}, {"gates", args.gates}, {"xa", xa}, {"yb", yb}});
    return T;
}

}  // namespace smlora::check
