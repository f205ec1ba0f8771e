#include "tuning/policy.hpp"

#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <array>

namespace smlora {
namespace {

constexpr std::array policies{TuningPolicy::first_use, TuningPolicy::off, TuningPolicy::record_only};

}  // namespace

std::string_view name(TuningPolicy policy) {
    switch (policy) {
        case TuningPolicy::first_use:
            return "first-use";
        case TuningPolicy::off:
            return "off";
        case TuningPolicy::record_only:
            return "record-only";
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("tuning policy: expected 0 to 2, got {}", static_cast<std::int32_t>(policy)));
}

TuningPolicy tuning_policy_from_name(std::string_view text) {
    for (const TuningPolicy policy : policies) {
        if (name(policy) == text) return policy;
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("tuning policy: expected first-use, off or record-only, got \"{}\"", text));
}

namespace tuning {

namespace {

TuningPolicy wanted_policy(std::optional<TuningPolicy> asked, std::string& complaint) {
    if (asked) return *asked;
    const auto wanted = util::environment("SMLORA_TUNING");
    if (!wanted) return default_policy;
    try {
        return tuning_policy_from_name(*wanted);
    } catch (const Error&) {
        complaint = fmt::format("SMLORA_TUNING: expected first-use, off or record-only, got \"{}\"; taking {}", *wanted,
                                name(default_policy));
        return default_policy;
    }
}

}  // namespace

TuningPolicy policy(std::optional<TuningPolicy> asked, std::string& complaint) {
    const TuningPolicy wanted = wanted_policy(asked, complaint);
    // Measuring would compile candidates.
    const bool may_compile = util::environment("SMLORA_JIT") != "off";
    return wanted == TuningPolicy::first_use && !may_compile ? TuningPolicy::record_only : wanted;
}

}  // namespace tuning
}  // namespace smlora
