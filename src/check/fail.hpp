#pragma once

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <utility>

namespace smlora::check {

/// Throws Error{invalid_argument} with the text. Out of line, for checks are in every call's way.
template <class... Arguments>
[[noreturn, gnu::cold, gnu::noinline]] void fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    throw Error(ErrorCode::invalid_argument, fmt::format(format, std::forward<Arguments>(arguments)...));
}

}  // namespace smlora::check
