#include <smlora/error.hpp>
#include <smlora/weight.hpp>

#include <fmt/format.h>

#include <array>

namespace smlora {
namespace {

// In the order of the enumeration.
constexpr std::array<std::string_view, 9> names{"plain", "nf4",   "fp4",   "int8", "mxfp4",
                                                "fp8",   "mxfp8", "nvfp4", "int4"};

}  // namespace

std::string_view name(Encoding encoding) {
    const auto index = static_cast<std::size_t>(encoding);
    if (index >= names.size()) {
        throw Error(ErrorCode::invalid_argument, fmt::format("encoding: expected a value from 0 to {}, got {}",
                                                             names.size() - 1, static_cast<std::int32_t>(encoding)));
    }
    return names[index];
}

Encoding encoding_from_name(std::string_view text) {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == text) return static_cast<Encoding>(i);
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("encoding: expected one of {}, got \"{}\"", fmt::join(names, ", "), text));
}

}  // namespace smlora
