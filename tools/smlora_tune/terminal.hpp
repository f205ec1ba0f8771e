// What a stream may be sent: colours and lines that are rewritten in place only where a person is looking.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace smlora::tool {

/// True when `stream` is a terminal that can move its cursor.
[[nodiscard]] bool is_terminal(std::FILE* stream);

/// Columns of the terminal behind `stream`, 80 if it does not say.
[[nodiscard]] int terminal_columns(std::FILE* stream);

/// Emphasis by ANSI codes: only on a terminal, and not when NO_COLOR is set and not empty (no-color.org).
class Style {
 public:
    explicit Style(std::FILE* stream);
    explicit Style(bool colour) : colour_(colour) {}

    [[nodiscard]] std::string bold(std::string_view text) const { return code("1", text); }
    [[nodiscard]] std::string good(std::string_view text) const { return code("32", text); }
    [[nodiscard]] std::string bad(std::string_view text) const { return code("1;31", text); }

 private:
    [[nodiscard]] std::string code(std::string_view sequence, std::string_view text) const;
    bool colour_ = false;
};

}  // namespace smlora::tool
