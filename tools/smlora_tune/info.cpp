// smlora-tune info: what this machine offers and where the cache is.
#include "smlora_tune/command.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/units.hpp"

#include <smlora/cache.hpp>
#include <smlora/error.hpp>
#include <smlora/system.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

namespace smlora::tool {
namespace {

constexpr const char* info_footer = R"(Example:
  smlora-tune info --json)";

/// The cache as the engine finds it, or why an engine cannot be made.
struct CacheState {
    std::vector<CacheLayer> layers;
    std::string error;
};

CacheState cache_state(const CommonOptions& common) {
    CacheState state;
    try {
        state.layers = cache_layers(Engine(engine_options(common, Backend::cpu, 0, 1)));
    } catch (const Error& error) {
        state.error = error.what();
    }
    return state;
}

nlohmann::ordered_json to_json(const SystemInfo& system, const CacheState& cache) {
    nlohmann::ordered_json document = json_document("info");
    document["version"] = system.smlora_version;
    document["driver"] = {{"found", system.driver_found},
                          {"version", system.driver_found ? cuda_version_text(system.driver_version) : ""},
                          {"error", system.driver_error}};
    document["devices"] = nlohmann::ordered_json::array();
    for (const DeviceInfo& device : system.devices) {
        document["devices"].push_back({{"ordinal", device.ordinal},
                                       {"name", device.name},
                                       {"arch", device.arch},
                                       {"multiprocessors", device.multiprocessors},
                                       {"memory_bytes", device.memory_bytes},
                                       {"l2_bytes", device.l2_bytes},
                                       {"shared_bytes_per_block", device.shared_bytes_per_block}});
    }
    document["nvrtc"] = {{"found", system.nvrtc_found},
                         {"version", system.nvrtc_version},
                         {"library", system.nvrtc_library},
                         {"error", system.nvrtc_error}};
    document["archs"] = system.archs;
    document["cache"]["error"] = cache.error;
    document["cache"]["layers"] = nlohmann::ordered_json::array();
    for (const CacheLayer& layer : cache.layers) {
        document["cache"]["layers"].push_back(
            {{"root", layer.root.string()}, {"writable", layer.writable}, {"exists", layer.exists}});
    }
    return document;
}

void print_text(const SystemInfo& system, const CacheState& cache) {
    print_results("smlora     {}\n", system.smlora_version);
    print_results("driver     {}\n", system.driver_found
                                         ? fmt::format("CUDA {}", cuda_version_text(system.driver_version))
                                         : fmt::format("none: {}", system.driver_error));
    if (system.devices.empty()) print_results("device     none\n");
    for (const DeviceInfo& device : system.devices) {
        print_results("device {}   {}, {}, {} multiprocessors, {} memory, {} L2, {} shared memory per block\n",
                      device.ordinal, device.name, device.arch, device.multiprocessors, bytes_text(device.memory_bytes),
                      bytes_text(device.l2_bytes), bytes_text(device.shared_bytes_per_block));
    }
    print_results("NVRTC      {}\n", system.nvrtc_found
                                         ? fmt::format("{} ({})", system.nvrtc_version, system.nvrtc_library)
                                         : fmt::format("none: {}", system.nvrtc_error));
    print_results("compiles   {}\n", system.archs.empty() ? "nothing, as there is no NVRTC"
                                                          : fmt::format("{}", fmt::join(system.archs, " ")));
    if (!cache.error.empty()) print_results("cache      {}\n", cache.error);
    for (const CacheLayer& layer : cache.layers) {
        print_results("cache      {} ({}{})\n", layer.root.string(), layer.writable ? "writable" : "read-only",
                      layer.exists ? "" : ", does not exist yet");
    }
}

ExitCode run_info(const CommonOptions& common) {
    const SystemInfo system = system_info();
    const CacheState cache = cache_state(common);
    if (common.json) {
        print_json(to_json(system, cache));
    } else {
        print_text(system, cache);
    }
    return ExitCode::ok;
}

}  // namespace

void add_info(CLI::App& app, Run& run) {
    auto common = std::make_shared<CommonOptions>();
    CLI::App* sub = app.add_subcommand("info", "Show devices, driver, NVRTC, architectures and cache layers");
    sub->footer(info_footer);
    add_common_options(*sub, *common);
    sub->callback([common, &run] { run = [common] { return run_info(*common); }; });
}

}  // namespace smlora::tool
