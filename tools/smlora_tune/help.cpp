#include "smlora_tune/help.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace smlora::tool {
namespace {

/// How many letters must be put in, taken out or changed to make one word of the other.
std::size_t distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> above(b.size() + 1);
    std::iota(above.begin(), above.end(), std::size_t{0});
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::vector<std::size_t> row{i + 1};
        for (std::size_t j = 0; j < b.size(); ++j) {
            row.push_back(std::min({row[j] + 1, above[j + 1] + 1, above[j] + (a[i] == b[j] ? 0U : 1U)}));
        }
        above = std::move(row);
    }
    return above.back();
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
    return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> names_of_commands(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::App* sub : commands_of(app)) names.push_back(sub->get_name());
    return names;
}

std::vector<std::string> names_of_options(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::Option* option : app.get_options()) {
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
    return names;
}

bool takes_positionals(const CLI::App& app) {
    const std::vector<const CLI::Option*> options = app.get_options();
    return std::any_of(options.begin(), options.end(),
                       [](const CLI::Option* option) { return option->get_positional(); });
}

/// The innermost sub-command that was named.
const CLI::App& named(const CLI::App& app) {
    const std::vector<CLI::App*> subs = app.get_subcommands();
    return subs.empty() ? app : named(*subs.front());
}

}  // namespace

std::string PlainFormatter::make_option_opts(const CLI::Option* option) const {
    return option->get_type_size() == 0 || option->get_type_name().empty() ? "" : " " + option->get_type_name();
}

std::string PlainFormatter::make_option_desc(const CLI::Option* option) const {
    const std::string value = option->get_default_str();
    return option->get_description() + (value.empty() ? "" : fmt::format(" [{}]", value));
}

std::vector<std::string> spelled_out(std::vector<std::string> arguments, const CLI::App& app) {
    if (arguments.empty()) return arguments;
    if (arguments.front() == "version") arguments.front() = "--version";
    if (arguments.front() == "help") {
        arguments.erase(arguments.begin());
        arguments.emplace_back("--help");
    }
    // A sub-command that takes a file or a key may be given one of that name.
    for (const CLI::App* sub : commands_of(app)) {
        const bool asked = arguments.size() == 2 && arguments.back() == "help" && sub->get_name() == arguments.front();
        if (asked && !takes_positionals(*sub)) arguments.back() = "--help";
    }
    return arguments;
}

std::string out_of_memory_text(const CLI::App& app) {
    const bool runs_operations = named(app).get_option_no_throw("--device") != nullptr;
    return runs_operations ? "out of memory: use fewer --tokens or a smaller --shape" : "out of memory";
}

std::string closest(const std::string& word, const std::vector<std::string>& names) {
    constexpr std::size_t most = 2;
    std::string best;
    std::size_t least = most + 1;
    for (const std::string& name : names) {
        const std::size_t far = distance(word, name);
        // Of a short word two letters are all there is.
        if (far < least && far < name.size() / 2) {
            best = name;
            least = far;
        }
    }
    return best;
}

std::string unexpected_text(const CLI::App& app) {
    const std::vector<std::string> extras = app.remaining(true);
    const CLI::App& command = named(app);
    if (extras.empty()) return "unexpected argument";
    const std::string& first = extras.front();
    const bool is_option = first.starts_with('-');
    const std::vector<std::string> commands = names_of_commands(command);
    const std::string near = closest(first, is_option ? names_of_options(command) : commands);
    const std::string hint = near.empty() ? "" : fmt::format("; did you mean {}?", near);
    if (!is_option && !commands.empty()) {
        return near.empty()
                   ? fmt::format("unknown sub-command '{}': expected one of {}", first, fmt::join(commands, ", "))
                   : fmt::format("unknown sub-command '{}'{}", first, hint);
    }
    return fmt::format("unexpected argument{}: {}{}", extras.size() > 1 ? "s" : "", fmt::join(extras, " "), hint);
}

}  // namespace smlora::tool
