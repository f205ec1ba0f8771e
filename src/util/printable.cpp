#include "util/printable.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdint>

namespace smlora::util {
namespace {

/// A character of a text and how many bytes it has; one byte where the text is no UTF-8.
struct Character {
    char32_t value = 0;
    std::size_t bytes = 1;
    bool sound = false;
};

Character first_of(std::string_view text) {
    struct Form {
        unsigned mask, lead;
        std::size_t bytes;
        char32_t least;
    };
    constexpr std::array forms{Form{0x80, 0x00, 1, 0}, Form{0xe0, 0xc0, 2, 0x80}, Form{0xf0, 0xe0, 3, 0x800},
                               Form{0xf8, 0xf0, 4, 0x10000}};
    const auto lead = static_cast<unsigned char>(text.front());
    for (const Form& form : forms) {
        if ((lead & form.mask) != form.lead) continue;
        if (text.size() < form.bytes) return {};
        char32_t value = lead & ~form.mask;
        for (std::size_t i = 1; i < form.bytes; ++i) {
            const auto byte = static_cast<unsigned char>(text[i]);
            if ((byte & 0xc0) != 0x80) return {};
            value = value << 6 | (byte & 0x3fU);
        }
        const bool surrogate = value >= 0xd800 && value < 0xe000;
        if (value < form.least || value > 0x10ffff || surrogate) return {};
        return {value, form.bytes, true};
    }
    return {};
}

bool is_obeyed(char32_t value) {
    const auto within = [value](char32_t first, char32_t last) { return value >= first && value <= last; };
    // Controls; then what ends a line or turns the direction of writing.
    return within(0, 0x1f) || within(0x7f, 0x9f) || within(0x200e, 0x200f) || within(0x2028, 0x202e) ||
           within(0x2066, 0x2069);
}

std::string escaped(std::string_view bytes, const Character& character) {
    if (character.value == '\n') return "\\n";
    if (character.value == '\t') return "\\t";
    if (!character.sound || character.value < 0x80) {
        return fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes.front()));
    }
    return fmt::format("\\u{:04x}", static_cast<std::uint32_t>(character.value));
}

}  // namespace

std::string printable(std::string_view text, std::size_t most) {
    std::string result;
    while (!text.empty()) {
        const Character character = first_of(text);
        const std::string_view bytes = text.substr(0, character.bytes);
        const bool plain = character.sound && !is_obeyed(character.value);
        result += plain ? std::string(bytes) : escaped(bytes, character);
        text.remove_prefix(character.bytes);
        if (result.size() >= most && !text.empty()) return result + "..";
    }
    return result;
}

bool is_printable(std::string_view text) {
    while (!text.empty()) {
        const Character character = first_of(text);
        if (!character.sound || is_obeyed(character.value)) return false;
        text.remove_prefix(character.bytes);
    }
    return true;
}

}  // namespace smlora::util
