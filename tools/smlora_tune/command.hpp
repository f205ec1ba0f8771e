// What the sub-commands have in common.
#pragma once

#include "smlora_tune/exit_code.hpp"

#include <smlora/engine.hpp>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>  // what App.hpp declares only
#include <nlohmann/json.hpp>

#include <functional>
#include <optional>
#include <string>

namespace smlora::tool {

/// Set by the sub-command that the command line names, and called by main once the whole line is understood.
using Run = std::function<ExitCode()>;

void add_info(CLI::App& app, Run& run);
void add_models(CLI::App& app, Run& run);
void add_prewarm(CLI::App& app, Run& run);
void add_verify(CLI::App& app, Run& run);
void add_bench(CLI::App& app, Run& run);
void add_cache(CLI::App& app, Run& run);
void add_tune(CLI::App& app, Run& run);
void add_explain(CLI::App& app, Run& run);
void add_export(CLI::App& app, Run& run);
void add_import(CLI::App& app, Run& run);
void add_carry(CLI::App& app, Run& run);

struct CommonOptions {
    bool json = false;
    bool verbose = false;
    std::string cache_dir;
};

void add_common_options(CLI::App& app, CommonOptions& options);

/// --device, for the commands that run operations.
struct DeviceOptions {
    std::string device = "cuda";
    int threads = 0;
};

void add_device_options(CLI::App& app, DeviceOptions& options);

/// Throws UsageError for anything but "cpu", "cuda" and "cuda:ORDINAL".
struct DeviceChoice {
    Backend backend = Backend::cuda;
    int ordinal = 0;
};
[[nodiscard]] DeviceChoice parse_device(const std::string& text);

/// Options of an engine that tunes nothing by itself unless SMLORA_TUNING says so; log lines go to `log`, or to stderr
/// when it is empty: warnings, with --verbose all of them.
[[nodiscard]] EngineOptions engine_options(const CommonOptions& common, Backend backend, int ordinal, int threads,
                                           const std::function<void(const std::string&)>& log = {});

/// The numbers of tokens that an engine chooses kernels for in calls of `tokens`. Says on stderr where that is one for
/// all.
[[nodiscard]] std::vector<std::int64_t> choice_tokens(const Engine& engine, std::vector<std::int64_t> tokens);

/// Says on stderr which read-only layers that were named are not there: what a command reports is without them.
void remark_missing_layers(const Engine& engine);

/// Raised when a field of the JSON output changes its meaning or goes; new fields leave it as it is.
inline constexpr int json_schema_version = 1;

/// {"schema_version": .., "command": ..}, to be filled further.
[[nodiscard]] nlohmann::ordered_json json_document(const std::string& command);

/// Prints on stdout, indented.
void print_json(const nlohmann::ordered_json& document);

}  // namespace smlora::tool
