// Help texts, and what is said about mistyped arguments.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Formatter.hpp>

#include <string>
#include <vector>

namespace smlora::tool {

/// Help texts without the marks of CLI11: an option, its type, what it does and its default in brackets.
class PlainFormatter : public CLI::Formatter {
 public:
    std::string make_option_opts(const CLI::Option* option) const override;
    std::string make_option_desc(const CLI::Option* option) const override;
};

/// The command line with what people try first put into what is there: "help", "help COMMAND", "COMMAND help",
/// "version".
[[nodiscard]] std::vector<std::string> spelled_out(std::vector<std::string> arguments, const CLI::App& app);

/// "unknown sub-command 'prewarn'; did you mean prewarm?" for arguments that nothing takes, in the order in which they
/// were given.
[[nodiscard]] std::string unexpected_text(const CLI::App& app);

/// What helps when memory ran out in the sub-command that was named: operands take it in those that run operations.
[[nodiscard]] std::string out_of_memory_text(const CLI::App& app);

/// The name that differs from `word` by a slip or two; empty if there is none.
[[nodiscard]] std::string closest(const std::string& word, const std::vector<std::string>& names);

}  // namespace smlora::tool
