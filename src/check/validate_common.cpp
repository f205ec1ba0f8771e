#include "check/validate_common.hpp"

#include "check/validate.hpp"
#include "check/validate_tensor.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <limits>

namespace smlora::check {

void check_backend(const Problem& problem, Backend backend) {
    if (backend == Backend::cuda && problem.dtype == DType::fp64) {
        throw Error(ErrorCode::unsupported,
                    "problem.dtype: expected bf16, fp16 or fp32 on the CUDA backend, got fp64 (CPU backend only)");
    }
}

void check_problem(const Problem& problem, Backend backend) {
    validate(problem);
    check_backend(problem, backend);
}

std::int64_t check_rows(const Problem& problem, std::int64_t T, Backend backend) {
    std::int64_t limit = std::numeric_limits<std::int64_t>::max();
    const char* counted_in = "int64";
    if (problem.index_dtype == DType::int32 || backend == Backend::cuda) {
        limit = std::numeric_limits<std::int32_t>::max();
        counted_in = problem.index_dtype == DType::int32 ? "int32 (problem.index_dtype)" : "int32 (CUDA backend)";
    }
    if (T < 0 || T > limit / problem.top_k) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("T: expected 0 to {}, so that M = T * top_k (top_k = {}) fits {}, got {}",
                                limit / problem.top_k, problem.top_k, counted_in, T));
    }
    return T * problem.top_k;
}

void validate_tokens(const Problem& problem, std::int64_t T) {
    validate(problem);
    check_rows(problem, T, Backend::cpu);
}

void check_routing(const Problem& problem, const Routing& routing, std::int64_t M) {
    if (routing.sorted_expert_idxs.given()) {
        check_tensor("routing.sorted_expert_idxs", routing.sorted_expert_idxs, problem.index_dtype, {{"M", M}},
                     Strides::contiguous);
    }
    check_tensor("routing.sorted_scattered_idxs", routing.sorted_scattered_idxs, problem.index_dtype, {{"M", M}},
                 Strides::contiguous);
    check_tensor("routing.expert_offsets", routing.expert_offsets, problem.index_dtype, {{"E", problem.E}},
                 Strides::contiguous);
}

void check_gates(const char* argument, const Tensor& tensor, const Problem& problem, std::int64_t T) {
    check_tensor(argument, tensor, problem.gate_dtype, {{"T", T}, {"top_k", problem.top_k}}, Strides::contiguous);
}

void check_workspace(const Workspace& workspace, std::size_t needed) {
    if (workspace.data == nullptr) {
        if (workspace.bytes > 0) {
            throw Error(
                ErrorCode::invalid_argument,
                fmt::format("workspace: expected memory for its {} bytes, got a null pointer", workspace.bytes));
        }
        return;
    }
    if (workspace.bytes < needed) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("workspace: expected at least {} bytes, got {}", needed, workspace.bytes));
    }
    if (reinterpret_cast<std::uintptr_t>(workspace.data) % 256 != 0) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("workspace: expected 256-byte-aligned memory, got {}", workspace.data));
    }
}

}  // namespace smlora::check
