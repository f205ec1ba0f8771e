#include "jit/include_lines.hpp"

namespace smlora::jit {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }

/// Reads a text from left to right, stepping over comments as if they were blanks.
class Reader {
 public:
    explicit Reader(std::string_view text) : text_(text) {}

    [[nodiscard]] bool at_end() const { return position_ >= text_.size(); }
    [[nodiscard]] char peek() const { return at_end() ? '\0' : text_[position_]; }
    [[nodiscard]] std::size_t position() const { return position_; }
    [[nodiscard]] int line() const { return line_; }

    void step() {
        line_ += peek() == '\n' ? 1 : 0;
        ++position_;
    }

    void skip_blanks_and_comments() {
        while (!at_end()) {
            if (is_blank(peek())) {
                step();
            } else if (starts_with("/*")) {
                const std::size_t end = text_.find("*/", position_ + 2);
                move_to(end == std::string_view::npos ? text_.size() : end + 2);
            } else if (starts_with("//")) {
                move_to(end_of_line());
            } else {
                return;
            }
        }
    }

    /// Steps over `token` if it comes next.
    bool take(std::string_view token) {
        if (!starts_with(token)) {
            return false;
        }
        move_to(position_ + token.size());
        return true;
    }

    /// Steps over the rest of the line; a comment or a string in it may hold anything, a comment also newlines.
    void skip_line() {
        while (!at_end() && peek() != '\n') {
            if (peek() == '"' || peek() == '\'') {
                skip_literal();
            } else if (starts_with("//") || starts_with("/*")) {
                skip_blanks_and_comments();
            } else {
                step();
            }
        }
        if (!at_end()) {
            step();
        }
    }

    [[nodiscard]] std::string_view until(char end) const {
        const std::size_t found = text_.find_first_of(std::string{end, '\n'}, position_);
        return found == std::string_view::npos || text_[found] == '\n' ? std::string_view{}
                                                                       : text_.substr(position_, found - position_);
    }

 private:
    [[nodiscard]] bool starts_with(std::string_view token) const { return text_.substr(position_).starts_with(token); }
    [[nodiscard]] std::size_t end_of_line() const {
        const std::size_t end = text_.find('\n', position_);
        return end == std::string_view::npos ? text_.size() : end;
    }
    void move_to(std::size_t position) {
        while (position_ < position && !at_end()) {
            step();
        }
    }
    // A quote that is not closed on its line is no literal (an apostrophe in an #error, a digit separator): only the
    // quote itself is stepped over.
    void skip_literal() {
        const char quote = peek();
        for (std::size_t i = position_ + 1; i < end_of_line(); ++i) {
            if (text_[i] == '\\') {
                ++i;
            } else if (text_[i] == quote) {
                move_to(i + 1);
                return;
            }
        }
        step();
    }

    std::string_view text_;
    std::size_t position_ = 0;
    int line_ = 1;
};

}  // namespace

std::vector<IncludeLine> quoted_includes(std::string_view text) {
    std::vector<IncludeLine> includes;
    Reader reader(text);
    while (!reader.at_end()) {
        reader.skip_blanks_and_comments();
        if (reader.take("#")) {
            reader.skip_blanks_and_comments();
            if (reader.take("include")) {
                reader.skip_blanks_and_comments();
                if (reader.take("\"")) {
                    const std::string_view name = reader.until('"');
                    if (!name.empty()) {
                        includes.push_back({std::string(name), reader.position(), reader.line()});
                        reader.take(name);
                        reader.step();
                    }
                }
            }
        }
        reader.skip_line();
    }
    return includes;
}

}  // namespace smlora::jit
