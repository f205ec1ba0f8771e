// smlora-tune: warms the kernel cache, tunes, checks and measures the operations, looks after the cache.
#include "smlora_tune/command.hpp"

#include <smlora/error.hpp>
#include <smlora/version.hpp>

#include <fmt/format.h>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>

namespace smlora::tool {
namespace {

constexpr const char* footer = R"(Examples:
  smlora-tune prewarm --model qwen3-30b-a3b --rank 16 --arch sm_90a
  smlora-tune tune --model qwen3-30b-a3b --rank 16 --tokens 4096
  smlora-tune verify --shape 128,2048,1536,16,8
  smlora-tune bench --shape 128,2048,1536,16,8 --tokens 2048 --json

Results go to stdout, progress and context to stderr. Exit codes:
  0  done
  1  something failed, or a result is out of tolerance
  2  the command line is wrong
  3  the command needs a GPU and there is none)";

int code(ExitCode exit) { return static_cast<int>(exit); }

int complain(ExitCode exit, const char* what) {
    fmt::print(stderr, "smlora-tune: {}\n", what);
    return code(exit);
}

int run(int argc, char** argv) {
    CLI::App app{"Kernels for LoRA training of Mixture-of-Experts models: compile, check, measure.", "smlora-tune"};
    app.footer(footer);
    app.set_version_flag("--version", "smlora-tune " SMLORA_VERSION);
    Run command = []() -> ExitCode {
        throw UsageError(
            "expected a sub-command: info, prewarm, tune, explain, verify, bench, cache, export or import; run with "
            "--help to see more");
    };
    add_info(app, command);
    add_prewarm(app, command);
    add_tune(app, command);
    add_explain(app, command);
    add_verify(app, command);
    add_bench(app, command);
    add_cache(app, command);
    add_export(app, command);
    add_import(app, command);
    add_carry(app, command);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
        return complain(ExitCode::usage,
                        fmt::format("{}\nRun with --help for more information.", error.what()).c_str());
    }
    try {
        return code(command());
    } catch (const UsageError& error) {
        return complain(ExitCode::usage, error.what());
    } catch (const Error& error) {
        return complain(error.code() == ErrorCode::no_device ? ExitCode::needs_gpu : ExitCode::failure, error.what());
    } catch (const std::bad_alloc&) {
        return complain(ExitCode::failure, "out of memory: expected fewer --tokens or a smaller --shape");
    } catch (const std::length_error&) {
        return complain(ExitCode::failure, "out of memory: expected fewer --tokens or a smaller --shape");
    } catch (const std::exception& error) {
        return complain(ExitCode::failure, error.what());
    }
}

}  // namespace
}  // namespace smlora::tool

int main(int argc, char** argv) { return smlora::tool::run(argc, argv); }
