// smlora-tune cache: what is in the cache, whether it is sound, making it smaller.
#include <smlora/cache.hpp>

#include "autotune/record_check.hpp"
#include "engine/engine_impl.hpp"
#include "smlora_tune/command.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/units.hpp"
#include "tuning/bundle.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace smlora::tool {
namespace {

constexpr const char* footer = R"(Examples:
  smlora-tune cache stats
  smlora-tune cache inspect 3fb2c1
  smlora-tune cache clear records)";

// What is printed of a key in lists: as long as git's short names, and like those enough to be unique.
constexpr std::size_t short_key = 12;

using Action = ExitCode (*)(const Engine&, const CommonOptions&, const std::string& key);

nlohmann::ordered_json to_json(const CacheEntryInfo& entry) {
    return {{"key", entry.key},
            {"kernel", entry.kernel},
            {"arch", entry.arch},
            {"compiler", entry.compiler},
            {"registers", entry.registers},
            {"spill_bytes", entry.spill_bytes},
            {"shared_bytes", entry.shared_bytes},
            {"compile_seconds", entry.compile_seconds},
            {"file_bytes", entry.file_bytes},
            {"file", entry.file.string()}};
}

ExitCode run_path(const Engine& engine, const CommonOptions& common, const std::string&) {
    nlohmann::ordered_json document = json_document("cache path");
    document["path"] = nullptr;
    for (const CacheLayer& layer : cache_layers(engine)) {
        if (layer.writable) document["path"] = layer.root.string();
    }
    if (common.json) {
        print_json(document);
        return ExitCode::ok;
    }
    if (document["path"].is_null())
        throw std::runtime_error(
            "no folder for the cache: expected --cache-dir, SMLORA_CACHE_DIR, XDG_CACHE_HOME or HOME");
    print_results("{}\n", document["path"].get<std::string>());
    return ExitCode::ok;
}

/// Tuning records of the writable layer.
std::size_t own_records(const Engine& engine) {
    const std::vector<cache::RecordText> records = engine.impl().cache.list_records();
    return static_cast<std::size_t>(std::count_if(
        records.begin(), records.end(), [](const auto& record) { return record.writable && !record.is_bundle(); }));
}

struct KnownBundle {
    std::filesystem::path file;
    std::string gpu;
    std::size_t tunings = 0;
};

/// The sound ones of all layers.
std::vector<KnownBundle> bundles(const Engine& engine) {
    std::vector<KnownBundle> known;
    for (const cache::RecordText& stored : engine.impl().cache.list_records()) {
        if (!stored.is_bundle()) continue;
        std::string why;
        const std::optional<tuning::Bundle> bundle = tuning::Bundle::parse(stored.text, why);
        if (bundle) known.push_back({stored.file, bundle->gpu(), bundle->tunings()});
    }
    return known;
}

/// Kernels, records and bundles of all layers that are unsound.
std::vector<CacheProblem> unsound(const Engine& engine) {
    std::vector<CacheProblem> problems = cache_verify(engine);
    for (const cache::RecordText& record : engine.impl().cache.list_records()) {
        for (const std::string& what : autotune::check_file(record, engine.impl().kernels).unsound) {
            problems.push_back({record.file, what});
        }
    }
    return problems;
}

ExitCode run_stats(const Engine& engine, const CommonOptions& common, const std::string&) {
    const CacheStats stats = cache_stats(engine);
    if (common.json) {
        nlohmann::ordered_json document = json_document("cache stats");
        document["layers"] = nlohmann::ordered_json::array();
        for (const CacheLayer& layer : stats.layers) {
            document["layers"].push_back(
                {{"root", layer.root.string()}, {"writable", layer.writable}, {"exists", layer.exists}});
        }
        document["entries"] = stats.entries;
        document["records"] = own_records(engine);
        document["bundles"] = nlohmann::ordered_json::array();
        for (const KnownBundle& bundle : bundles(engine)) {
            document["bundles"].push_back(
                {{"file", bundle.file.string()}, {"gpu", bundle.gpu}, {"tunings", bundle.tunings}});
        }
        document["bytes"] = stats.bytes;
        document["limit_bytes"] = stats.limit_bytes;
        print_json(document);
        return ExitCode::ok;
    }
    for (const CacheLayer& layer : stats.layers) {
        print_results("{:<16}{}{}\n", layer.writable ? "Cache folder:" : "Read-only layer:", layer.writable ? "" : " ",
                      layer.root.string() + (layer.exists ? "" : " (not there yet)"));
    }
    print_results("{:<16}{}\n", "Kernels:", stats.entries);
    print_results("{:<16}{}\n", "Tuning records:", own_records(engine));
    for (const KnownBundle& bundle : bundles(engine)) {
        print_results("{:<16}{} tunings of {}, {}\n", "Bundle:", bundle.tunings, bundle.gpu, bundle.file.string());
    }
    if (stats.limit_bytes == 0) {
        print_results("{:<16}{}, no limit\n", "Size:", bytes_text(stats.bytes));
    } else {
        print_results("{:<16}{} / {} ({:.2f}%)\n", "Size:", bytes_text(stats.bytes), bytes_text(stats.limit_bytes),
                      100 * static_cast<double>(stats.bytes) / static_cast<double>(stats.limit_bytes));
    }
    return ExitCode::ok;
}

ExitCode run_list(const Engine& engine, const CommonOptions& common, const std::string&) {
    const std::vector<CacheEntryInfo> entries = cache_list(engine);
    if (common.json) {
        nlohmann::ordered_json document = json_document("cache list");
        document["entries"] = nlohmann::ordered_json::array();
        for (const CacheEntryInfo& entry : entries) document["entries"].push_back(to_json(entry));
        print_json(document);
        return ExitCode::ok;
    }
    Table table({{"key"},
                 {"arch"},
                 {"size", Align::right},
                 {"registers", Align::right},
                 {"spills", Align::right},
                 {"compile", Align::right},
                 {"kernel"}});
    for (const CacheEntryInfo& entry : entries) {
        table.add({entry.key.substr(0, short_key), entry.arch, bytes_text(entry.file_bytes),
                   std::to_string(entry.registers), std::to_string(entry.spill_bytes),
                   seconds_text(entry.compile_seconds), entry.kernel});
    }
    print_results("{}", table.text());
    return ExitCode::ok;
}

ExitCode run_inspect(const Engine& engine, const CommonOptions& common, const std::string& key) {
    const CacheEntryInfo entry = cache_inspect(engine, key);
    const auto metadata = nlohmann::ordered_json::parse(entry.metadata);
    if (common.json) {
        nlohmann::ordered_json document = json_document("cache inspect");
        document["entry"] = to_json(entry);
        document["metadata"] = metadata;
        print_json(document);
        return ExitCode::ok;
    }
    print_results("key       {}\nfile      {}\nkernel    {}\narch      {}\ncompiler  {}\nsize      {}\n", entry.key,
                  entry.file.string(), entry.kernel, entry.arch, entry.compiler, bytes_text(entry.file_bytes));
    print_results("compile   {}\nusage     {} registers, {} bytes spilled, {} bytes of static shared memory\n",
                  seconds_text(entry.compile_seconds), entry.registers, entry.spill_bytes, entry.shared_bytes);
    print_results("metadata  {}\n", metadata.dump(2));
    return ExitCode::ok;
}

ExitCode run_verify(const Engine& engine, const CommonOptions& common, const std::string&) {
    const std::vector<CacheProblem> problems = unsound(engine);
    const std::uint64_t sound = cache_stats(engine).entries;
    const ExitCode result = problems.empty() ? ExitCode::ok : ExitCode::failure;
    if (common.json) {
        nlohmann::ordered_json document = json_document("cache verify");
        document["entries"] = sound;
        document["unsound"] = nlohmann::ordered_json::array();
        for (const CacheProblem& problem : problems) {
            document["unsound"].push_back({{"file", problem.file.string()}, {"what", problem.what}});
        }
        print_json(document);
        return result;
    }
    for (const CacheProblem& problem : problems) print_results("{}: {}\n", problem.file.string(), problem.what);
    if (problems.empty()) {
        print_results("{} kernels, {} tuning records and {} bundles, all sound\n", sound, own_records(engine),
                      bundles(engine).size());
    } else {
        print_results("{} unsound; each counts as a miss and is made again when it is needed\n", problems.size());
    }
    return result;
}

/// `what`: kernels, records or all; kernels if it is empty. Says what stays.
ExitCode run_clear(const Engine& engine, const CommonOptions& common, const std::string& what) {
    const bool clears_kernels = what != "records";
    const bool clears_records = what == "records" || what == "all";
    const std::uint64_t kernels = clears_kernels ? cache_clear(engine) : 0;
    const std::uint64_t records = clears_records ? engine.impl().cache.clear_records() : 0;
    if (common.json) {
        nlohmann::ordered_json document = json_document("cache clear");
        document["removed"] = kernels;
        document["removed_records"] = records;
        document["kernels_left"] = cache_stats(engine).entries;
        document["records_left"] = own_records(engine);
        print_json(document);
        return ExitCode::ok;
    }
    const auto text = [](bool wanted, std::uint64_t removed, std::uint64_t left, const char* name) {
        return wanted ? fmt::format("{} {} removed", removed, name) : fmt::format("{} {} left", left, name);
    };
    print_results("{}, {}\n", text(clears_kernels, kernels, cache_stats(engine).entries, "kernels"),
                  text(clears_records, records, own_records(engine), "tuning records"));
    return ExitCode::ok;
}

struct CacheCommand {
    CommonOptions common;
    std::string key;
};

CLI::App* add_action(CLI::App& cache, Run& run, const std::shared_ptr<CacheCommand>& command, const char* name,
                     const char* description, Action action) {
    CLI::App* sub = cache.add_subcommand(name, description);
    add_common_options(*sub, command->common);
    sub->callback([command, action, &run] {
        run = [command, action] {
            const Engine engine(engine_options(command->common, Backend::cpu, 0, 1));
            return action(engine, command->common, command->key);
        };
    });
    return sub;
}

}  // namespace

void add_cache(CLI::App& app, Run& run) {
    auto command = std::make_shared<CacheCommand>();
    CLI::App* cache = app.add_subcommand("cache", "Look after the kernel cache");
    cache->footer(footer);
    // Called after those of the sub-commands.
    cache->callback([cache, &run] {
        if (!cache->get_subcommands().empty()) return;
        run = []() -> ExitCode {
            throw UsageError(
                "cache: expected path, stats, list, inspect, verify or clear; run with --help to see more");
        };
    });
    add_action(*cache, run, command, "path", "The writable cache folder", run_path);
    add_action(*cache, run, command, "stats", "Layers, number of kernels and tunings, size", run_stats);
    add_action(*cache, run, command, "list", "The kernels, newest first", run_list);
    CLI::App* inspect =
        add_action(*cache, run, command, "inspect", "Everything that is known of one kernel", run_inspect);
    inspect->add_option("key", command->key, "Its key, or as much of it as is unique")
        ->required()
        ->type_name("KEY")
        ->check(hexadecimal());
    add_action(*cache, run, command, "verify",
               "Read every kernel, tuning record and bundle; exit code 1 when one is unsound", run_verify);
    CLI::App* clear = add_action(
        *cache, run, command, "clear",
        "Remove kernels, which are compiled again when needed, or tuning records, which are measured again, of the "
        "writable layer; those of read-only layers and those that come with smlora stay",
        run_clear);
    clear->add_option("what", command->key, "kernels, records or all [kernels]")
        ->type_name("WHAT")
        ->check(CLI::IsMember({"kernels", "records", "all"}).description(""));
}

}  // namespace smlora::tool
