// route, group, combine and combine_backward.
#include "check/overlap.hpp"
#include "check/validate.hpp"
#include "check/validate_common.hpp"
#include "check/validate_tensor.hpp"

#include <smlora/error.hpp>

namespace smlora::check {

std::int64_t validate_route(const Problem& problem, const RouteArgs& args, Backend backend) {
    check_problem(problem, backend);
    const std::int64_t T = tokens_of_choices(args.top_idx);
    const std::int64_t M = check_rows(problem, T, backend);
    check_tensor("top_idx", args.top_idx, args.top_idx.dtype, {{"T", T}, {"top_k", problem.top_k}},
                 Strides::contiguous);
    check_given("routing.sorted_expert_idxs", args.routing.sorted_expert_idxs, "to route, which writes it");
    check_routing(problem, args.routing, M);
    check_apart({{"routing.sorted_expert_idxs", args.routing.sorted_expert_idxs},
                 {"routing.sorted_scattered_idxs", args.routing.sorted_scattered_idxs},
                 {"routing.expert_offsets", args.routing.expert_offsets},
                 Operand(args.workspace)},
                {{"top_idx", args.top_idx}});
    return T;
}

std::int64_t validate_group(const Problem& problem, const GroupArgs& args, Backend backend) {
    check_problem(problem, backend);
    if (problem.x_rows == RowOrder::grouped) {
        throw Error(ErrorCode::invalid_argument, "problem.x_rows: expected token or scattered to group, got grouped");
    }
    const std::int64_t T = tokens_of_rows("x", args.x, problem.x_rows, problem);
    const std::int64_t M = check_rows(problem, T, backend);
    const std::int64_t width = args.x.shape[1];
    const Extent rows = problem.x_rows == RowOrder::token ? Extent{"T", T} : Extent{"M", M};
    check_tensor("x", args.x, problem.dtype, {rows, {"width", width}}, Strides::rows);
    if (args.gates.given()) check_gates("gates", args.gates, problem, T);
    check_routing(problem, args.routing, M);
    check_tensor("out", args.out, problem.dtype, {{"M", M}, {"width of x", width}}, Strides::rows);
    check_apart({{"out", args.out}, Operand(args.workspace)}, args.routing, {{"x", args.x}, {"gates", args.gates}});
    return T;
}

std::int64_t validate_combine(const Problem& problem, const CombineArgs& args, Backend backend) {
    check_problem(problem, backend);
    const std::int64_t T = tokens_of_rows("y", args.y, RowOrder::scattered, problem);
    const std::int64_t M = check_rows(problem, T, backend);
    const std::int64_t width = args.y.shape[1];
    check_tensor("y", args.y, problem.dtype, {{"M", M}, {"width", width}}, Strides::rows);
    if (args.gates.given()) check_gates("gates", args.gates, problem, T);
    check_tensor("out", args.out, problem.dtype, {{"T", T}, {"width of y", width}}, Strides::rows);
    check_apart({{"out", args.out}, Operand(args.workspace)}, {{"y", args.y}, {"gates", args.gates}});
    return T;
}

std::int64_t validate_combine_backward(const Problem& problem, const CombineBackwardArgs& args, Backend backend) {
    check_problem(problem, backend);
    if (!args.dy.given() && !args.dgates.given()) {
        throw Error(ErrorCode::invalid_argument, "dy, dgates: expected at least one to be given, got neither");
    }
    const std::int64_t T = tokens_of_rows("dout", args.dout, RowOrder::token, problem);
    const std::int64_t M = check_rows(problem, T, backend);
    const Extent width{"width of dout", args.dout.shape[1]};
    check_tensor("dout", args.dout, problem.dtype, {{"T", T}, {"width", width.value}}, Strides::rows);
    if (args.dgates.given()) check_given("y", args.y, "to compute dgates");
    if (args.y.given()) check_tensor("y", args.y, problem.dtype, {{"M", M}, width}, Strides::rows);
    if (args.gates.given()) check_gates("gates", args.gates, problem, T);
    if (args.dy.given()) check_tensor("dy", args.dy, problem.dtype, {{"M", M}, width}, Strides::rows);
    if (args.dgates.given()) check_gates("dgates", args.dgates, problem, T);
    check_apart({{"dy", args.dy}, {"dgates", args.dgates}, Operand(args.workspace)},
                {{"dout", args.dout}, {"y", args.y}, {"gates", args.gates}});
    return T;
}

}  // namespace smlora::check
