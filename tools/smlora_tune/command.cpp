#include "smlora_tune/command.hpp"

#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/output.hpp"

#include "engine/engine_impl.hpp"
#include "tuning/determinism.hpp"
#include "util/environment.hpp"

#include <smlora/cache.hpp>
#include <smlora/error.hpp>

#include <fmt/format.h>

#include <charconv>
#include <cstdio>

namespace smlora::tool {
namespace {

constexpr int most_threads = 1024;

}  // namespace

void add_common_options(CLI::App& app, CommonOptions& options) {
    app.add_flag("--json", options.json, "Print results as JSON");
    app.add_option("--cache-dir", options.cache_dir,
                   "Writable cache folder [SMLORA_CACHE_DIR, else $XDG_CACHE_HOME/smlora, else ~/.cache/smlora]")
        ->type_name("DIR");
    app.add_flag("-v,--verbose", options.verbose, "Print all log lines of the library");
}

void add_device_options(CLI::App& app, DeviceOptions& options) {
    app.add_option("--device", options.device, "Where operations run: cuda, cuda:ORDINAL or cpu")
        ->type_name("DEVICE")
        ->capture_default_str();
    app.add_option("--threads", options.threads, "Threads of the CPU backend [one per core]")
        ->type_name("N")
        ->check(whole_number(1, most_threads));
}

DeviceChoice parse_device(const std::string& text) {
    if (text == "cpu") return {Backend::cpu, 0};
    if (text == "cuda") return {Backend::cuda, 0};
    constexpr std::string_view prefix = "cuda:";
    if (text.rfind(prefix, 0) == 0) {
        int ordinal = -1;
        const char* const end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(text.data() + prefix.size(), end, ordinal);
        if (error == std::errc{} && stop == end && ordinal >= 0) return {Backend::cuda, ordinal};
    }
    throw UsageError(fmt::format("--device: expected cuda, cuda:ORDINAL or cpu, got '{}'", text));
}

EngineOptions engine_options(const CommonOptions& common, Backend backend, int ordinal, int threads,
                             const std::function<void(const std::string&)>& log) {
    EngineOptions options;
    options.backend = backend;
    options.device = ordinal;
    options.threads = threads;
    if (!common.cache_dir.empty()) options.cache_root = common.cache_dir;
    // Tuning during a check or a timing would be a surprise.
    options.tuning = TuningPolicy::record_only;
    if (const auto policy = util::environment("SMLORA_TUNING")) {
        try {
            options.tuning = tuning_policy_from_name(*policy);
        } catch (const Error&) {
            throw UsageError(fmt::format("SMLORA_TUNING: expected first-use, off or record-only, got \"{}\"", *policy));
        }
    }
    try {
        options.determinism = tuning::determinism({});
    } catch (const Error& error) {
        throw UsageError(error.what());
    }
    options.log = [verbose = common.verbose, log](LogLevel level, std::string_view line) {
        if (!verbose && level != LogLevel::notice && level != LogLevel::warning) return;
        const std::string text = fmt::format("smlora-tune: {}{}", level == LogLevel::warning ? "warning: " : "", line);
        if (log) {
            log(text);
        } else {
            print_remark("{}\n", text);
        }
    };
    return options;
}

std::vector<std::int64_t> choice_tokens(const Engine& engine, std::vector<std::int64_t> tokens) {
    const Determinism determinism = engine.impl().options.determinism.value_or(Determinism::run);
    if (determinism == Determinism::batch) {
        print_remark("kernels are chosen as for {} tokens, whatever a call has (SMLORA_DETERMINISM=batch)\n",
                     tuning::batch_tokens);
    }
    return tuning::choice_tokens(determinism, std::move(tokens));
}

void remark_missing_layers(const Engine& engine) {
    for (const CacheLayer& layer : cache_layers(engine)) {
        if (layer.writable || layer.exists) continue;
        print_remark("smlora-tune: cache layer {} does not exist\n", layer.root.string());
    }
}

nlohmann::ordered_json json_document(const std::string& command) {
    return {{"schema_version", json_schema_version}, {"command", command}};
}

void print_json(const nlohmann::ordered_json& document) {
    // In ASCII, as a terminal obeys some characters beyond. The name of a file need not be UTF-8, and JSON is.
    print_results("{}\n", document.dump(2, ' ', true, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace smlora::tool
