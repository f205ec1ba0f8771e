// Settings that come from the environment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace smlora::util {

/// The value of a variable; nothing when it is unset or empty, or when this process has more rights than the user who
/// started it (setuid): a variable must not choose what code such a process loads.
[[nodiscard]] std::optional<std::string> environment(const char* name);

/// A number of bytes: decimal digits, then nothing or one of K, M and G, in either case, for powers of 1024. Nothing
/// when the text is anything else or the number does not fit in 64 bits.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);

}  // namespace smlora::util
