#include "smlora_tune/terminal.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace smlora::tool {

bool is_terminal(std::FILE* stream) {
    const char* term = std::getenv("TERM");
    const bool dumb = term == nullptr || std::string_view(term) == "dumb";
    return isatty(fileno(stream)) == 1 && !dumb;
}

int terminal_columns(std::FILE* stream) {
    winsize size{};
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
}

Style::Style(std::FILE* stream) {
    const char* no_color = std::getenv("NO_COLOR");
    colour_ = is_terminal(stream) && (no_color == nullptr || *no_color == '\0');
}

std::string Style::code(std::string_view sequence, std::string_view text) const {
    return colour_ ? fmt::format("\x1b[{}m{}\x1b[0m", sequence, text) : std::string(text);
}

}  // namespace smlora::tool
