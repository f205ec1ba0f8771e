// README.md shows what the program prints.
#include "program.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <sstream>

namespace smlora::tool {
namespace {

using Readme = ProgramTest;

std::string text_of(const char* file) {
    std::ifstream stream(file);
    std::ostringstream text;
    text << stream.rdbuf();
    return text.str();
}

/// What stands indented under "$ smlora-tune COMMAND", up to the next command or paragraph.
std::string shown_under(const std::string& readme, const std::string& command) {
    const std::string line = "    $ smlora-tune " + command + "\n";
    const std::size_t at = readme.find(line);
    if (at == std::string::npos) return "";
    std::istringstream lines(readme.substr(at + line.size()));
    std::string shown;
    for (std::string next; std::getline(lines, next);) {
        const bool indented = next.rfind("    ", 0) == 0;
        if ((!next.empty() && !indented) || next.rfind("    $", 0) == 0) break;
        shown += indented ? next.substr(4) + "\n" : "\n";
    }
    while (shown.ends_with("\n\n")) shown.pop_back();
    return shown;
}

/// Errors of rounding depend on the processor's instructions.
std::string without_errors(const std::string& text) {
    return std::regex_replace(text, std::regex(R"(\d\.\d\de-\d\d)"), "#.##e-##");
}

TEST_F(Readme, VerifyPrintsWhatStandsThere) {
    const Outcome outcome = run({"verify", "--device", "cpu", "--shape", "40,96,80,5,3", "--tokens", "77", "--y-rows",
                                 "token", "--gates", "--bias"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const std::string shown = shown_under(
        text_of(SMLORA_README), "verify --device cpu --shape 40,96,80,5,3 --tokens 77 --y-rows token --gates --bias");
    EXPECT_EQ(without_errors(shown), without_errors(outcome.out));
}

}  // namespace
}  // namespace smlora::tool
