#include "capi/json.hpp"

#include <nlohmann/json.hpp>

namespace smlora::capi {
namespace {

using nlohmann::json;

constexpr int schema = 1;

/// Paths and driver messages need not be UTF-8; what is not is replaced rather than refused.
std::string text_of(json object) {
    object["schema"] = schema;
    return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

template <class T, class F>
json array_of(const std::vector<T>& items, F&& convert) {
    json result = json::array();
    for (const T& item : items) result.push_back(convert(item));
    return result;
}

json layer_object(const CacheLayer& layer) {
    return {{"root", layer.root.string()}, {"writable", layer.writable}, {"exists", layer.exists}};
}

json problem_object(const CacheProblem& problem) { return {{"file", problem.file.string()}, {"what", problem.what}}; }

json entry_object(const CacheEntryInfo& entry) {
    return {{"key", entry.key},
            {"file", entry.file.string()},
            {"kernel", entry.kernel},
            {"arch", entry.arch},
            {"compiler", entry.compiler},
            {"registers", entry.registers},
            {"spill_bytes", entry.spill_bytes},
            {"shared_bytes", entry.shared_bytes},
            {"compile_seconds", entry.compile_seconds},
            {"file_bytes", entry.file_bytes}};
}

json device_object(const DeviceInfo& device) {
    return {{"ordinal", device.ordinal},
            {"name", device.name},
            {"arch", device.arch},
            {"multiprocessors", device.multiprocessors},
            {"memory_bytes", device.memory_bytes},
            {"l2_bytes", device.l2_bytes},
            {"shared_bytes_per_block", device.shared_bytes_per_block}};
}

}  // namespace

std::string to_json(const SystemInfo& system) {
    return text_of(
        {{"smlora_version", system.smlora_version},
         {"driver",
          {{"found", system.driver_found}, {"version", system.driver_version}, {"error", system.driver_error}}},
         {"nvrtc",
          {{"found", system.nvrtc_found},
           {"version", system.nvrtc_version},
           {"library", system.nvrtc_library},
           {"error", system.nvrtc_error}}},
         {"archs", system.archs},
         {"devices", array_of(system.devices, device_object)}});
}

std::string to_json(const std::vector<CacheLayer>& layers) {
    return text_of({{"layers", array_of(layers, layer_object)}});
}

std::string to_json(const CacheStats& stats) {
    return text_of({{"layers", array_of(stats.layers, layer_object)},
                    {"entries", stats.entries},
                    {"bytes", stats.bytes},
                    {"limit_bytes", stats.limit_bytes},
                    {"memory_hits", stats.memory_hits},
                    {"disk_hits", stats.disk_hits},
                    {"compiles", stats.compiles},
                    {"rejected", stats.rejected},
                    {"unreadable", array_of(stats.unreadable, problem_object)}});
}

std::string to_json(const std::vector<CacheEntryInfo>& entries) {
    return text_of({{"entries", array_of(entries, entry_object)}});
}

std::string to_json(const CacheEntryInfo& entry) {
    json object = entry_object(entry);
    object["metadata"] = json::parse(entry.metadata);
    return text_of(std::move(object));
}

std::string to_json(const std::vector<CacheProblem>& problems) {
    return text_of({{"problems", array_of(problems, problem_object)}});
}

std::string to_json(const PrewarmReport& report) {
    return text_of({{"kernels", report.kernels},
                    {"compiled", report.compiled},
                    {"found", report.found},
                    {"seconds", report.seconds},
                    {"compile_seconds", report.compile_seconds},
                    {"not_stored", report.not_stored},
                    {"works", report.works},
                    {"recorded", report.recorded},
                    {"warnings", report.warnings}});
}

std::string to_json(const TuneReport& report) {
    return text_of({{"seconds", report.seconds},
                    {"stopped", report.stopped},
                    {"works", array_of(report.works, [](const TunedWork& work) {
                         return json{{"tokens", work.tokens},         {"work", work.work},
                                     {"outcome", name(work.outcome)}, {"complete", work.complete},
                                     {"routing", work.routing},       {"choice", work.choice},
                                     {"reason", work.reason},         {"median_seconds", work.median_seconds},
                                     {"seconds", work.seconds},       {"record", work.record}};
                     })}});
}

}  // namespace smlora::capi
