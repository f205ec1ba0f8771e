// How many there are of something, for a message.
#pragma once

#include <fmt/format.h>

#include <concepts>
#include <string>
#include <string_view>

namespace smlora::util {

/// "1 kernel", "2 kernels". The noun's plural ends in "s".
[[nodiscard]] std::string counted(std::integral auto number, std::string_view noun) {
    return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

}  // namespace smlora::util
