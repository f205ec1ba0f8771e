#include "tuning/determinism.hpp"

#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

namespace smlora {

std::string_view name(Determinism determinism) {
    switch (determinism) {
        case Determinism::run:
            return "run";
        case Determinism::batch:
            return "batch";
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("determinism: expected 0 to 1, got {}", static_cast<std::int32_t>(determinism)));
}

Determinism determinism_from_name(std::string_view text) {
    for (const Determinism one : {Determinism::run, Determinism::batch}) {
        if (name(one) == text) return one;
    }
    throw Error(ErrorCode::invalid_argument, fmt::format("determinism: expected run or batch, got \"{}\"", text));
}

namespace tuning {

Determinism determinism(std::optional<Determinism> asked) {
    if (asked) {
        static_cast<void>(name(*asked));  // refuses what is none
        return *asked;
    }
    const auto wanted = util::environment("SMLORA_DETERMINISM");
    if (!wanted) return Determinism::run;
    try {
        return determinism_from_name(*wanted);
    } catch (const Error&) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("SMLORA_DETERMINISM: expected run or batch, got \"{}\"", *wanted));
    }
}

std::vector<std::int64_t> choice_tokens(Determinism determinism, std::vector<std::int64_t> tokens) {
    if (determinism == Determinism::batch && !tokens.empty()) return {batch_tokens};
    return tokens;
}

}  // namespace tuning
}  // namespace smlora
