// System, cache, prewarming and tuning: their results leave as JSON.
#include "capi/convert.hpp"
#include "capi/handles.hpp"
#include "capi/json.hpp"

namespace {

using namespace smlora;
using namespace smlora::capi;

/// Hands the JSON of query() to the caller.
template <class Query>
smlora_status answer(char** json, Query&& query) {
    return guarded([&] {
        required(json, "json");
        *json = new_string(to_json(query()));
    });
}

}  // namespace

extern "C" {

smlora_status smlora_prewarm(smlora_engine* engine, const smlora_prewarm_options* options, char** report_json) {
    return guarded([&] {
        const smlora_prewarm_options o = read_struct(options, "options");
        std::function<void(const PrewarmProgress&)> progress;
        if (o.progress != nullptr) {
            progress = [&o](const PrewarmProgress& p) {
                const std::string kernel(p.kernel), compiling(p.compiling);
                smlora_prewarm_progress seen{};
                seen.struct_size = sizeof seen;
                seen.done = p.done;
                seen.total = p.total;
                seen.compiled = p.compiled;
                seen.kernel = kernel.c_str();
                seen.compile_seconds = p.compile_seconds;
                seen.compiling = compiling.c_str();
                o.progress(&seen, o.progress_user);
            };
        }
        const PrewarmReport report = prewarm(to_engine(engine), to_options(o), progress);
        if (report_json != nullptr) *report_json = new_string(to_json(report));
    });
}

smlora_status smlora_tune(smlora_engine* engine, const smlora_problem* problem, const smlora_tune_options* options,
                          char** report_json) {
    return guarded([&] {
        const TuneReport report = tune(to_engine(engine), to_problem(problem), to_options(options));
        if (report_json != nullptr) *report_json = new_string(to_json(report));
    });
}

smlora_status smlora_system_info(char** json) {
    return answer(json, [] { return system_info(); });
}

smlora_status smlora_set_nvrtc_folders(const char* const* folders, size_t count) {
    return guarded([&] { set_nvrtc_folders(to_strings<std::filesystem::path>(folders, count, "folders")); });
}

smlora_status smlora_cache_layers(smlora_engine* engine, char** json) {
    return answer(json, [&] { return cache_layers(to_engine(engine)); });
}

smlora_status smlora_cache_stats(smlora_engine* engine, char** json) {
    return answer(json, [&] { return cache_stats(to_engine(engine)); });
}

smlora_status smlora_cache_list(smlora_engine* engine, char** json) {
    return answer(json, [&] { return cache_list(to_engine(engine)); });
}

smlora_status smlora_cache_inspect(smlora_engine* engine, const char* key, char** json) {
    return answer(json, [&] { return cache_inspect(to_engine(engine), &required(key, "key")); });
}

smlora_status smlora_cache_verify(smlora_engine* engine, char** json) {
    return answer(json, [&] { return cache_verify(to_engine(engine)); });
}

smlora_status smlora_cache_clear(smlora_engine* engine, uint64_t* removed) {
    return guarded([&] {
        const std::uint64_t count = cache_clear(to_engine(engine));
        if (removed != nullptr) *removed = count;
    });
}

smlora_status smlora_cache_count_use(smlora_engine* engine) {
    return guarded([&] { cache_count_use(to_engine(engine)); });
}

}  // extern "C"
