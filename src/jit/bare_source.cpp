#include "jit/bare_source.hpp"

#include <cctype>

namespace smlora::jit {
namespace {

bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

/// Of a name or number.
bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' ||
           static_cast<unsigned char>(c) >= 0x80;
}

bool is_white(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f'; }

/// The length of a line continuation at `at`, 0 if there is none.
std::size_t continuation(std::string_view text, std::size_t at) {
    if (text.substr(at).starts_with("\\\n")) return 2;
    return text.substr(at).starts_with("\\\r\n") ? 3 : 0;
}

/// Reads tokens and writes them with the white space that they need.
class Bare {
 public:
    explicit Bare(std::string_view text) : text_(text) {}

    std::string make() {
        while (skip_white() && at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '#' && line_begins_) {
                begin_line();
                directive_ = true;
            }
            line_begins_ = false;
            if (is_raw_string()) {
                take_raw_string();
            } else if (c == '"' || c == '\'') {
                take_literal(c);
            } else if (is_digit(c) || (c == '.' && is_digit(peek(1)))) {
                take_number();
            } else if (is_word(c)) {
                std::string word;
                while (is_word(peek(0))) word += next();
                put(word);
            } else {
                put(std::string(1, next()));
            }
        }
        if (!bare_.empty() && bare_.back() == '\n') bare_.pop_back();
        return std::move(bare_);
    }

 private:
    /// The character `ahead` of the next one, continuations left out; 0 behind the end.
    [[nodiscard]] char peek(std::size_t ahead) const {
        std::size_t at = at_;
        for (;;) {
            while (const std::size_t length = continuation(text_, at)) at += length;
            if (at >= text_.size()) return '\0';
            if (ahead-- == 0) return text_[at];
            ++at;
        }
    }

    char next() {
        while (const std::size_t length = continuation(text_, at_)) at_ += length;
        return at_ < text_.size() ? text_[at_++] : '\0';
    }

    /// To the next token, whose first character `at_` then leads to. Always true.
    bool skip_white() {
        for (;;) {
            while (const std::size_t length = continuation(text_, at_)) at_ += length;
            if (at_ >= text_.size()) return true;
            if (text_[at_] == '\n') {
                if (directive_) begin_line();
                line_begins_ = true;
            }
            if (is_white(text_[at_])) {
                ++at_;
            } else if (peek(0) == '/' && peek(1) == '/') {
                while (peek(0) != '\n' && peek(0) != '\0') next();
            } else if (peek(0) == '/' && peek(1) == '*') {
                next();
                next();
                while (peek(0) != '\0' && !(peek(0) == '*' && peek(1) == '/')) next();
                next();
                next();
            } else {
                return true;
            }
            white_ = true;
        }
    }

    void begin_line() {
        if (!bare_.empty() && bare_.back() != '\n') bare_ += '\n';
        directive_ = false;
        white_ = false;
    }

    void put(const std::string& token) {
        if (white_ && !bare_.empty() && bare_.back() != '\n' && may_mean_something(bare_.back(), token.front())) {
            bare_ += ' ';
        }
        white_ = false;
        bare_ += token;
    }

    /// White space between these two. A quote may belong to the word beside it, a point to the number.
    [[nodiscard]] bool may_mean_something(char before, char after) const {
        // 0x1e+5 is one number, and no good one.
        const bool exponent = before == 'e' || before == 'E' || before == 'p' || before == 'P';
        if (exponent && (after == '+' || after == '-')) return true;
        const auto like_a_word = [](char c) { return is_word(c) || c == '"' || c == '\'' || c == '.'; };
        return directive_ || like_a_word(before) == like_a_word(after);
    }

    void take_number() {
        std::string number;
        for (;;) {
            const char c = peek(0);
            const bool digit_separator = c == '\'' && is_word(peek(1));
            const char before = number.empty() ? '\0' : number.back();
            const bool sign =
                (c == '+' || c == '-') && (before == 'e' || before == 'E' || before == 'p' || before == 'P');
            if (!is_word(c) && c != '.' && !digit_separator && !sign) break;
            number += next();
        }
        put(number);
    }

    /// A quote that is not closed on its line is no literal (an apostrophe in an #error).
    void take_literal(char quote) {
        const std::size_t begin = at_;
        std::string literal(1, next());
        while (peek(0) != '\0' && peek(0) != '\n') {
            literal += next();
            if (literal.back() == '\\' && peek(0) != '\n' && peek(0) != '\0') {
                literal += next();
            } else if (literal.back() == quote) {
                return put(literal);
            }
        }
        at_ = begin;
        put(std::string(1, next()));
    }

    /// R"( here, or behind the prefix that the last word is.
    [[nodiscard]] bool is_raw_string() const {
        if (text_[at_] != '"' || white_ || bare_.empty() || bare_.back() != 'R') return false;
        std::size_t begin = bare_.size();
        while (begin > 0 && is_word(bare_[begin - 1])) --begin;
        const std::string_view prefix = std::string_view(bare_).substr(begin);
        return prefix == "R" || prefix == "LR" || prefix == "uR" || prefix == "UR" || prefix == "u8R";
    }

    /// As it stands: continuations are no such thing in it.
    void take_raw_string() {
        const std::size_t open = text_.find('(', at_);
        std::size_t stop = text_.size();
        if (open != std::string_view::npos) {
            std::string end = ")";
            end.append(text_.substr(at_ + 1, open - at_ - 1)).append(1, '"');
            if (const std::size_t close = text_.find(end, open); close != std::string_view::npos) {
                stop = close + end.size();
            }
        }
        bare_ += text_.substr(at_, stop - at_);
        at_ = stop;
    }

    std::string_view text_;
    std::size_t at_ = 0;
    std::string bare_;
    bool white_ = false;       // since the last token
    bool line_begins_ = true;  // no token stands before on this line
    bool directive_ = false;   // in a preprocessor line
};

}  // namespace

std::string bare_source(std::string_view text) { return Bare(text).make(); }

}  // namespace smlora::jit
