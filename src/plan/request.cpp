#include "plan/request.hpp"

namespace smlora::plan {

Unpack unpack_request(const Problem& problem, const families::UnpackWork& work, std::uint64_t limit) {
    const std::int64_t slice = families::slice_experts(problem, limit);
    return {.work = work, .slice = slice < problem.E ? slice : 0};
}

const Unpack* unpack_of(const Request& request) {
    return std::visit(
        [](const auto& one) -> const Unpack* {
            if constexpr (requires { one.unpack; }) {
                return one.unpack ? &*one.unpack : nullptr;
            } else {
                return nullptr;
            }
        },
        request);
}

std::int64_t experts_at_once(const Problem& problem, const Unpack& unpack) {
    return unpack.slice > 0 ? unpack.slice : problem.E;
}

bool packed(const Request& request) {
    return std::visit(
        [](const auto& one) {
            if constexpr (requires { one.packed; }) {
                return one.packed;
            } else {
                return false;
            }
        },
        request);
}

Request with_plain_weights(Request request) {
    std::visit(
        [](auto& one) {
            if constexpr (requires { one.unpack; }) {
                one.unpack.reset();
                one.packed = false;
            }
        },
        request);
    return request;
}

Problem with_plain_weights(Problem problem) {
    problem.weights = {};
    return problem;
}

std::uint8_t bucket(const Request& request) {
    return std::visit(
        [](const auto& one) -> std::uint8_t {
            if constexpr (requires { one.bucket; }) {
                return one.bucket;
            } else {
                return 0;
            }
        },
        request);
}

void set_bucket(Request& request, std::uint8_t bucket) {
    std::visit(
        [bucket](auto& one) {
            if constexpr (requires { one.bucket; }) one.bucket = bucket;
        },
        request);
}

bool on_tensor_cores(const Request& request) {
    return std::visit(
        [](const auto& one) {
            if constexpr (requires { one.tensor_cores; }) {
                return one.tensor_cores;
            } else {
                return false;
            }
        },
        request);
}

}  // namespace smlora::plan
