#include "util/environment.hpp"

#include <stdlib.h>

#include <charconv>
#include <limits>

namespace smlora::util {
namespace {

/// The power of two that a suffix multiplies by.
std::optional<unsigned> shift_of(std::string_view suffix) {
    if (suffix.empty()) return 0;
    if (suffix == "K" || suffix == "k") return 10;
    if (suffix == "M" || suffix == "m") return 20;
    if (suffix == "G" || suffix == "g") return 30;
    return std::nullopt;
}

}  // namespace

std::optional<std::string> environment(const char* name) {
    const char* value = ::secure_getenv(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
    std::uint64_t number = 0;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{}) return std::nullopt;
    const auto shift = shift_of({rest, static_cast<std::size_t>(end - rest)});
    if (!shift || number > (std::numeric_limits<std::uint64_t>::max() >> *shift)) return std::nullopt;
    return number << *shift;
}

}  // namespace smlora::util
