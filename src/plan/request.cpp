#include "plan/request.hpp"

namespace smlora::plan {

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
