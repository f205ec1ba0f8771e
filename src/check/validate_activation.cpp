// activation and activation_backward.
#include "check/overlap.hpp"
#include "check/validate.hpp"
#include "check/validate_common.hpp"
#include "check/validate_tensor.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace smlora::check {
namespace {

struct Extents {
    std::int64_t rows = 0;
    std::int64_t width = 0;
};

template <class Args>
void check_parameters(const Args& args) {
    const auto fail = [](auto format, auto... values) {
        throw Error(ErrorCode::invalid_argument, fmt::format(fmt::runtime(format), values...));
    };
    const auto kind = static_cast<std::int32_t>(args.activation);
    if (kind < 0 || kind > static_cast<std::int32_t>(Activation::swiglu_clamped)) {
        fail("activation: expected swiglu, geglu, geglu_tanh, reglu or swiglu_clamped, got the value {}", kind);
    }
    const auto layout = static_cast<std::int32_t>(args.layout);
    if (layout != 0 && layout != 1) fail("layout: expected halves or interleaved, got the value {}", layout);
    if (args.activation != Activation::swiglu_clamped) return;
    if (!std::isfinite(args.alpha)) fail("alpha: expected a finite number, got {}", args.alpha);
    if (!std::isfinite(args.limit) || args.limit <= 0) {
        fail("limit: expected a finite number above 0, got {}", args.limit);
    }
}

/// Of the rows of a or da, which tell them.
Extents extents_of(const char* argument, const Tensor& rows, const Problem& problem, Backend backend) {
    check_given(argument, rows, "as [rows, width]");
    if (rows.ndim != 2 || rows.shape[0] < 0 || rows.shape[1] < 0) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("{}: expected [rows, width], got {} dimensions", argument, rows.ndim));
    }
    const Extents extents{rows.shape[0], rows.shape[1]};
    check_tensor(argument, rows, problem.dtype, {{"rows", extents.rows}, {"width", extents.width}}, Strides::rows);
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    if (backend == Backend::cuda && extents.rows > most) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("{}: expected at most {} rows (CUDA backend), got {}", argument, most, extents.rows));
    }
    return extents;
}

void check_gated(const char* argument, const Tensor& tensor, const Problem& problem, const Extents& extents) {
    check_tensor(argument, tensor, problem.dtype, {{"rows", extents.rows}, {"2 * width", 2 * extents.width}},
                 Strides::rows);
}

/// Grouped rows, each with the gate of its entry.
void check_row_gates(const Problem& problem, const ActivationBackwardArgs& args, std::int64_t rows) {
    if (!args.gates.given()) {
        check_absent("sorted_scattered_idxs", args.sorted_scattered_idxs, "without gates");
        check_absent("dgates", args.dgates, "without gates");
        return;
    }
    if (rows % problem.top_k != 0) {
        throw Error(
            ErrorCode::invalid_argument,
            fmt::format("da: expected a multiple of problem.top_k = {} rows with gates, got {}", problem.top_k, rows));
    }
    check_gates("gates", args.gates, problem, rows / problem.top_k);
    check_given("dgates", args.dgates, "with gates");
    check_gates("dgates", args.dgates, problem, rows / problem.top_k);
    check_given("sorted_scattered_idxs", args.sorted_scattered_idxs, "with gates");
    check_tensor("sorted_scattered_idxs", args.sorted_scattered_idxs, problem.index_dtype, {{"rows", rows}},
                 Strides::contiguous);
}

}  // namespace

std::int64_t validate_activation(const Problem& problem, const ActivationArgs& args, Backend backend) {
    check_problem(problem, backend);
    check_parameters(args);
    const Extents extents = extents_of("a", args.a, problem, backend);
    check_gated("h", args.h, problem, extents);
    check_apart({{"a", args.a}}, {{"h", args.h}});
    return extents.rows;
}

std::int64_t validate_activation_backward(const Problem& problem, const ActivationBackwardArgs& args, Backend backend) {
    check_problem(problem, backend);
    check_parameters(args);
    const Extents extents = extents_of("da", args.da, problem, backend);
    check_gated("h", args.h, problem, extents);
    check_gated("dh", args.dh, problem, extents);
    if (args.a.given()) {
        check_tensor("a", args.a, problem.dtype, {{"rows", extents.rows}, {"width", extents.width}}, Strides::rows);
    }
    check_row_gates(problem, args, extents.rows);
    check_apart(
        {{"dh", args.dh}, {"a", args.a}, {"dgates", args.dgates}},
        {{"h", args.h}, {"da", args.da}, {"gates", args.gates}, {"sorted_scattered_idxs", args.sorted_scattered_idxs}});
    return extents.rows;
}

}  // namespace smlora::check
