// Text that somebody else may have written, for a message.
#pragma once

#include <string>
#include <string_view>

namespace smlora::util {

/// The text with everything that a terminal would obey, and what is no UTF-8, as an escape: "\x1b", "\n", "\u202e". Of
/// its own result it changes nothing. Of a text that is longer than `most` bytes the beginning, and "..".
[[nodiscard]] std::string printable(std::string_view text, std::size_t most = 400);

/// Whether printable() would leave it as it is, whatever its length.
[[nodiscard]] bool is_printable(std::string_view text);

}  // namespace smlora::util
