#include "jit/ptxas_report.hpp"

#include <cctype>
#include <charconv>
#include <optional>

namespace smlora::jit {
namespace {

/// The number right before `unit` in `line`: 168 of "Used 168 registers, used 1 barriers" for " registers".
std::optional<std::int64_t> number_before(std::string_view line, std::string_view unit) {
    const std::size_t end = line.find(unit);
    if (end == std::string_view::npos) {
        return std::nullopt;
    }
    std::size_t begin = end;
    while (begin > 0 && std::isdigit(static_cast<unsigned char>(line[begin - 1])) != 0) {
        --begin;
    }
    std::int64_t value = 0;
    const auto [stop, error] = std::from_chars(line.data() + begin, line.data() + end, value);
    return error == std::errc{} && stop == line.data() + end ? std::optional(value) : std::nullopt;
}

template <class Function>
void for_each_line(std::string_view text, const Function& function) {
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        function(text.substr(0, end));
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    }
}

bool is_serialization_note(std::string_view line) {
    for (std::size_t at = line.find("(C75"); at != std::string_view::npos; at = line.find("(C75", at + 1)) {
        int number = 0;
        const char* const digits = line.data() + at + 2;
        const auto [stop, error] = std::from_chars(digits, line.data() + line.size(), number);
        if (error == std::errc{} && stop - digits == 4 && number >= 7510 && number <= 7520) {
            return true;
        }
    }
    return false;
}

}  // namespace

ResourceUse resource_use(std::string_view log) {
    ResourceUse use;
    for_each_line(log, [&](std::string_view line) {
        use.stack_bytes += number_before(line, " bytes stack frame").value_or(0);
        use.spill_store_bytes += number_before(line, " bytes spill stores").value_or(0);
        use.spill_load_bytes += number_before(line, " bytes spill loads").value_or(0);
        if (const auto registers = number_before(line, " registers")) {
            use.registers = *registers;
            use.barriers = number_before(line, " barriers").value_or(0);
            use.shared_bytes = number_before(line, " bytes smem").value_or(0);
        }
    });
    return use;
}

std::vector<std::string> serialization_notes(std::string_view log) {
    std::vector<std::string> notes;
    for_each_line(log, [&](std::string_view line) {
        if (is_serialization_note(line)) {
            notes.emplace_back(line);
        }
    });
    return notes;
}

}  // namespace smlora::jit
