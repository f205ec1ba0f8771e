// smlora-tune: warms the kernel cache, tunes, checks and measures the operations, looks after the cache.
#include "smlora_tune/command.hpp"
#include "smlora_tune/help.hpp"
#include "smlora_tune/output.hpp"

#include <smlora/error.hpp>
#include <smlora/version.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <exception>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace smlora::tool {
namespace {

constexpr const char* footer = R"(Examples:
  smlora-tune prewarm --model qwen3-30b-a3b --rank 16 --arch sm_90a
  smlora-tune tune --model qwen3-30b-a3b --rank 16 --tokens 4096
  smlora-tune verify --shape 128,2048,1536,16,8
  smlora-tune bench --shape 128,2048,1536,16,8 --tokens 2048 --json

Results go to stdout, progress and context to stderr. Exit codes:
  0  done
  1  something failed, a result is out of tolerance, or the results could not be written
  2  the command line is wrong
  3  the command needs a GPU and there is none)";

constexpr const char* more_help = "\nRun with --help for more information.";

int code(ExitCode exit) { return static_cast<int>(exit); }

int complain(ExitCode exit, const std::string& what) {
    print_remark("smlora-tune: {}\n", what);
    return code(exit);
}

/// So that none, such as a variable of the shell that is not set, passes for an option that is not given.
void refuse_empty_arguments(CLI::App& app) {
    for (CLI::Option* option : app.get_options()) {
        option->check(
            [](const std::string& text) { return text.empty() ? "expected a value, got ''" : std::string(); });
    }
    for (CLI::App* command : app.get_subcommands({})) refuse_empty_arguments(*command);
}

int run(int argc, char** argv) {
    CLI::App app{"Kernels for LoRA training of Mixture-of-Experts models: compile, check, measure.", "smlora-tune"};
    app.footer(footer);
    app.formatter(std::make_shared<PlainFormatter>());
    app.set_help_flag("-h,--help", "Print this help");
    app.set_version_flag("-V,--version", "smlora-tune " SMLORA_VERSION, "Print the version");
    Run command = []() -> ExitCode {
        throw UsageError(
            "expected a sub-command: info, models, prewarm, tune, explain, verify, bench, cache, export or import; run "
            "with --help to see more");
    };
    add_info(app, command);
    add_models(app, command);
    add_prewarm(app, command);
    add_tune(app, command);
    add_explain(app, command);
    add_verify(app, command);
    add_bench(app, command);
    add_cache(app, command);
    add_export(app, command);
    add_import(app, command);
    add_carry(app, command);
    refuse_empty_arguments(app);
    try {
        try {
            std::vector<std::string> arguments = spelled_out({argv + 1, argv + argc}, app);
            std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
            app.parse(std::move(arguments));
        } catch (const CLI::ExtrasError&) {
            throw UsageError(unexpected_text(app) + more_help);
        } catch (const CLI::ParseError& error) {
            if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::Success)) {
                throw UsageError(error.what() + std::string(more_help));
            }
            // --help and --version.
            std::ostringstream text;
            app.exit(error, text, text);
            command = [text = text.str()] {
                write_results(text);
                return ExitCode::ok;
            };
        }
        const ExitCode exit = command();
        finish_results();
        return code(exit);
    } catch (const UsageError& error) {
        return complain(ExitCode::usage, error.what());
    } catch (const Error& error) {
        return complain(error.code() == ErrorCode::no_device ? ExitCode::needs_gpu : ExitCode::failure, error.what());
    } catch (const std::bad_alloc&) {
        return complain(ExitCode::failure, out_of_memory_text(app));
    } catch (const std::length_error&) {
        return complain(ExitCode::failure, out_of_memory_text(app));
    } catch (const std::exception& error) {
        return complain(ExitCode::failure, error.what());
    }
}

}  // namespace
}  // namespace smlora::tool

int main(int argc, char** argv) {
    // A result that exceeds `ulimit -f` is one that could not be written.
    std::signal(SIGXFSZ, SIG_IGN);
    smlora::tool::occupy_closed_streams();
    return smlora::tool::run(argc, argv);
}
