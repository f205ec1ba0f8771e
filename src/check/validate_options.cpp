// The options of an engine.
#include "check/validate.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

namespace smlora::check {
namespace {

void check_not_negative(const char* option, int value) {
    if (value < 0)
        throw Error(ErrorCode::invalid_argument, fmt::format("{}: expected 0 or more, got {}", option, value));
}

}  // namespace

void validate_options(const EngineOptions& options) {
    if (options.backend != Backend::cuda && options.backend != Backend::cpu) {
        throw Error(ErrorCode::invalid_argument, fmt::format("backend: expected cuda or cpu, got the value {}",
                                                             static_cast<std::int32_t>(options.backend)));
    }
    check_not_negative("device", options.device);
    check_not_negative("threads", options.threads);
}

}  // namespace smlora::check
