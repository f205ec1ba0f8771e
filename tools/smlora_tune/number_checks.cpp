#include "smlora_tune/number_checks.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <string>

namespace smlora::tool {
namespace {

/// The whole of the text as a number in decimal.
template <class Number>
std::optional<Number> parse(const std::string& text) {
    Number number{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return number;
}

}  // namespace

CLI::Validator whole_number(std::int64_t least, std::int64_t most) {
    const auto check = [least, most](const std::string& text) -> std::string {
        const auto number = parse<std::int64_t>(text);
        if (number && *number >= least && *number <= most) return "";
        if (most == std::numeric_limits<std::int64_t>::max()) {
            return fmt::format("expected a whole number of at least {}, got '{}'", least, text);
        }
        return fmt::format("expected a whole number from {} to {}, got '{}'", least, most, text);
    };
    return {check, ""};
}

CLI::Validator positive_number() {
    const auto check = [](const std::string& text) -> std::string {
        const auto number = parse<double>(text);
        if (number && std::isfinite(*number) && *number > 0) return "";
        return fmt::format("expected a number above 0, got '{}'", text);
    };
    return {check, ""};
}

CLI::Validator share() {
    const auto check = [](const std::string& text) -> std::string {
        const auto number = parse<double>(text);
        if (number && *number >= 0 && *number <= 1) return "";
        return fmt::format("expected a number from 0 to 1, got '{}'", text);
    };
    return {check, ""};
}

CLI::Validator hexadecimal() {
    const auto check = [](const std::string& text) -> std::string {
        if (!text.empty() && text.find_first_not_of("0123456789abcdef") == std::string::npos) return "";
        return fmt::format("expected digits 0 to 9 and a to f, got '{}'", text);
    };
    return {check, ""};
}

}  // namespace smlora::tool
