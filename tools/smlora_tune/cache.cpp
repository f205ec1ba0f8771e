// smlora-tune cache: what is in the cache, whether it is sound.
#include <smlora/cache.hpp>

#include "autotune/record_check.hpp"
#include "cache/inspection.hpp"
#include "engine/engine_impl.hpp"
#include "smlora_tune/cache_command.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/units.hpp"
#include "tuning/bundle.hpp"
#include "util/counted.hpp"
#include "util/file_system.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

namespace smlora::tool {
namespace {

constexpr const char* cache_footer = R"(Examples:
  smlora-tune cache stats
  smlora-tune cache inspect 3fb2c1
  smlora-tune cache prune --older-than 30d --max-size 1G --dry-run
  smlora-tune cache verify --repair
  smlora-tune cache clear records --yes)";

// What is printed of a key in lists: as long as git's short names, and like those enough to be unique.
constexpr std::size_t short_key = 12;

using Action = ExitCode (*)(const Engine&, const CacheCommand&);

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

std::optional<std::filesystem::path> find_writable_folder(const Engine& engine) {
    for (const CacheLayer& layer : cache_layers(engine)) {
        if (layer.writable) return layer.root;
    }
    return std::nullopt;
}

ExitCode run_path(const Engine& engine, const CacheCommand& command) {
    if (!command.common.json) {
        print_results("{}\n", writable_folder(engine).string());
        return ExitCode::ok;
    }
    nlohmann::ordered_json document = json_document("cache path");
    document["path"] = nullptr;
    if (const auto folder = find_writable_folder(engine)) document["path"] = folder->string();
    print_json(document);
    return ExitCode::ok;
}

struct KnownBundle {
    std::filesystem::path file;
    std::string gpu;
    std::size_t tunings = 0;
};

/// The sound ones of all layers.
std::vector<KnownBundle> bundles(const Engine& engine) {
    std::vector<KnownBundle> known;
    std::vector<CacheProblem> unreadable;
    const std::vector<cache::RecordText> records = engine.impl().cache.list_records(&unreadable);
    cache::require_none(unreadable);
    for (const cache::RecordText& stored : records) {
        if (!stored.is_bundle()) continue;
        std::string why;
        const std::optional<tuning::Bundle> bundle = tuning::Bundle::parse(stored.text, why);
        if (bundle) known.push_back({stored.file, bundle->gpu(), bundle->tunings()});
    }
    return known;
}

/// Kernels, records and bundles of all layers that are unsound, and folders that cannot be read.
std::vector<cache::UnsoundFile> unsound(const Engine& engine, cache::Checked& checked) {
    std::vector<cache::UnsoundFile> found = engine.impl().cache.verify(&checked);
    std::vector<CacheProblem> unreadable;
    for (const cache::RecordText& record : engine.impl().cache.list_records(&unreadable)) {
        for (const std::string& what : autotune::check_file(record, engine.impl().kernels).unsound) {
            found.push_back({record, what, true});
        }
    }
    // Most were met when the kernels were read.
    for (const CacheProblem& problem : unreadable) {
        const auto same = [&](const cache::UnsoundFile& known) { return known.file == problem.file; };
        if (std::none_of(found.begin(), found.end(), same)) found.push_back({{"", "", problem.file, {}}, problem.what});
    }
    return found;
}

void print_stats(const Engine& engine, const CacheCommand& command) {
    const cache::Cache& cache = engine.impl().cache;
    const cache::UseCounts uses = cache.use_counts();
    const cache::CacheUsage usage = usage_of(engine);
    const std::vector<CacheLayer> layers = cache_layers(engine);
    const std::vector<KnownBundle> known = bundles(engine);
    const std::uint64_t limit = cache.limit_bytes();
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("cache stats");
        document["layers"] = nlohmann::ordered_json::array();
        for (const CacheLayer& layer : layers) {
            document["layers"].push_back(
                {{"root", layer.root.string()}, {"writable", layer.writable}, {"exists", layer.exists}});
        }
        document["entries"] = usage.entries;
        document["records"] = usage.records;
        document["bundles"] = nlohmann::ordered_json::array();
        for (const KnownBundle& bundle : known) {
            document["bundles"].push_back(
                {{"file", bundle.file.string()}, {"gpu", bundle.gpu}, {"tunings", bundle.tunings}});
        }
        document["bytes"] = usage.bytes;
        document["limit_bytes"] = limit;
        document["record_bytes"] = usage.record_bytes;
        document["oldest_seconds"] = nullptr;
        document["newest_seconds"] = nullptr;
        if (usage.entries > 0) {
            document["oldest_seconds"] = cache.age(usage.oldest);
            document["newest_seconds"] = cache.age(usage.newest);
        }
        document["hits"] = uses.hits;
        document["misses"] = uses.misses;
        document["evictions"] = uses.evictions;
        document["zeroed"] = command.zero;
        print_json(document);
        return;
    }
    for (const CacheLayer& layer : layers) {
        print_results("{:<16}{}{}\n", layer.writable ? "Cache folder:" : "Read-only layer:", layer.writable ? "" : " ",
                      layer.root.string() + (layer.exists ? "" : " (not there yet)"));
    }
    print_results("{:<16}{}\n", "Kernels:", usage.entries);
    print_results("{:<16}{}\n", "Tuning records:", usage.records);
    for (const KnownBundle& bundle : known) {
        print_results("{:<16}{} of {}, {}\n", "Bundle:", util::counted(bundle.tunings, "tuning"), bundle.gpu,
                      bundle.file.string());
    }
    const std::uint64_t bytes = usage.bytes + usage.record_bytes;
    if (limit == 0) {
        print_results("{:<16}{}, no limit\n", "Size:", bytes_text(bytes));
    } else {
        print_results("{:<16}{} / {} ({:.2f}%)\n", "Size:", bytes_text(bytes), bytes_text(limit),
                      100 * static_cast<double>(bytes) / static_cast<double>(limit));
    }
    if (usage.entries > 0) {
        print_results("{:<16}{} to {} ago\n", "Last used:", duration_text(cache.age(usage.newest)),
                      duration_text(cache.age(usage.oldest)));
    }
    const std::uint64_t asked = uses.hits + uses.misses;
    const double hit_share = asked == 0 ? 0 : 100 * static_cast<double>(uses.hits) / static_cast<double>(asked);
    print_results("{:<16}{} / {} ({:.2f}%)\n", "Hits:", uses.hits, asked, hit_share);
    print_results("{:<16}{}\n", "Misses:", uses.misses);
    print_results("{:<16}{}{}\n", "Evictions:", uses.evictions, command.zero ? "; counted anew from now on" : "");
}

ExitCode run_stats(const Engine& engine, const CacheCommand& command) {
    print_stats(engine, command);
    if (command.zero) {
        // Not before they are told.
        finish_results();
        engine.impl().cache.zero_use_counts();
    }
    return ExitCode::ok;
}

ExitCode run_list(const Engine& engine, const CacheCommand& command) {
    const std::vector<CacheEntryInfo> entries = cache_list(engine);
    if (command.common.json) {
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

ExitCode run_inspect(const Engine& engine, const CacheCommand& command) {
    const CacheEntryInfo entry = cache_inspect(engine, command.key);
    const auto metadata = nlohmann::json::parse(entry.metadata);
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("cache inspect");
        document["entry"] = to_json(entry);
        document["metadata"] = metadata;
        print_json(document);
        return ExitCode::ok;
    }
    print_results("key       {}\nfile      {}\nkernel    {}\narch      {}\ncompiler  {}\nsize      {}\n", entry.key,
                  entry.file.string(), entry.kernel, entry.arch, entry.compiler, bytes_text(entry.file_bytes));
    print_results("compile   {}\nusage     {}, {} spilled, {} of static shared memory\n",
                  seconds_text(entry.compile_seconds), util::counted(entry.registers, "register"),
                  util::counted(entry.spill_bytes, "byte"), util::counted(entry.shared_bytes, "byte"));
    print_results("metadata  {}\n", metadata.dump(2, ' ', true));
    return ExitCode::ok;
}

ExitCode run_verify(const Engine& engine, const CacheCommand& command) {
    cache::Checked checked;
    std::vector<cache::UnsoundFile> problems = unsound(engine, checked);
    std::set<std::filesystem::path> removed;
    for (cache::UnsoundFile& one : problems) {
        if (!command.repair || !one.useless || !one.writable || removed.contains(one.file)) continue;
        const std::optional<int> error = engine.impl().cache.remove(one);
        if (error == 0) removed.insert(one.file);
        if (error.value_or(0) != 0) one.why += "; it cannot be removed: " + util::describe_error(*error);
    }
    const auto stays = [&](const cache::UnsoundFile& one) { return !removed.contains(one.file); };
    const auto left = std::count_if(problems.begin(), problems.end(), stays);
    const ExitCode result = left == 0 ? ExitCode::ok : ExitCode::failure;
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("cache verify");
        document["entries"] = checked.kernels;
        document["unsound"] = nlohmann::ordered_json::array();
        for (const cache::UnsoundFile& one : problems) {
            document["unsound"].push_back({{"file", one.file.string()}, {"what", one.why}, {"removed", !stays(one)}});
        }
        print_json(document);
        return result;
    }
    for (const cache::UnsoundFile& one : problems) {
        print_results("{}: {}{}\n", one.file.string(), one.why, stays(one) ? "" : "; removed");
    }
    if (problems.empty()) {
        print_results("{}, {} and {}, all sound\n", util::counted(checked.kernels, "kernel"),
                      util::counted(checked.records, "tuning record"), util::counted(checked.bundles, "bundle"));
    } else if (command.repair) {
        print_results("{} removed, {} left{}\n", util::counted(removed.size(), "file"), util::counted(left, "problem"),
                      left == 0 ? "" : ": what is in a read-only layer, or cannot be read or removed, stays");
    } else {
        print_results("{} unsound; each counts as a miss and is made again when it is needed\n", problems.size());
    }
    return result;
}

/// Which layers an action reports on, unless it lists the layers themselves.
enum class Reads { all_layers, other };

CLI::App* add_action(CLI::App& cache, Run& run, const std::shared_ptr<CacheCommand>& command, const char* name,
                     const char* description, Action action, Reads reads = Reads::other) {
    CLI::App* sub = cache.add_subcommand(name, description);
    add_common_options(*sub, command->common);
    sub->callback([command, action, reads, &run] {
        run = [command, action, reads] {
            const Engine engine(engine_options(command->common, Backend::cpu, 0, 1));
            if (reads == Reads::all_layers) remark_missing_layers(engine);
            return action(engine, *command);
        };
    });
    return sub;
}

}  // namespace

cache::CacheUsage usage_of(const Engine& engine) {
    cache::CacheUsage usage = engine.impl().cache.usage();
    cache::require_none(usage.unreadable);
    return usage;
}

std::filesystem::path writable_folder(const Engine& engine) {
    if (auto folder = find_writable_folder(engine)) return *std::move(folder);
    throw std::runtime_error("no folder for the cache: expected --cache-dir, SMLORA_CACHE_DIR, XDG_CACHE_HOME or HOME");
}

void add_cache(CLI::App& app, Run& run) {
    auto command = std::make_shared<CacheCommand>();
    CLI::App* cache = app.add_subcommand("cache", "Look after the kernel cache");
    cache->footer(cache_footer);
    // Called after those of the sub-commands.
    cache->callback([cache, &run] {
        if (!cache->get_subcommands().empty()) return;
        run = []() -> ExitCode {
            throw UsageError(
                "cache: expected path, stats, list, inspect, verify, prune or clear; run with --help to see more");
        };
    });
    add_action(*cache, run, command, "path", "The writable cache folder", run_path);
    add_action(*cache, run, command, "stats",
               "Layers, number of kernels and tunings, size, age, and what processes that have ended found or compiled",
               run_stats)
        ->add_flag("--zero", command->zero, "Count hits, misses and evictions anew");
    add_action(*cache, run, command, "list", "The kernels, newest first", run_list, Reads::all_layers);
    CLI::App* inspect = add_action(*cache, run, command, "inspect", "Everything that is known of one kernel",
                                   run_inspect, Reads::all_layers);
    inspect->add_option("key", command->key, "Its key, or as much of it as is unique")
        ->required()
        ->type_name("KEY")
        ->check(hexadecimal());
    add_action(*cache, run, command, "verify",
               "Read every kernel, tuning record and bundle; exit code 1 when one is unsound", run_verify,
               Reads::all_layers)
        ->add_flag("--repair", command->repair, "Remove what is unsound from the writable layer");
    CLI::App* prune = add_action(*cache, run, command, "prune",
                                 "Remove kernels of the writable layer: those of --arch that have not been used for "
                                 "--older-than, then those unused for longest, down to --max-size",
                                 run_prune);
    prune->add_option("--max-size", command->max_size, "What the kernels may hold: bytes, or a number with K, M or G")
        ->type_name("SIZE");
    prune->add_option("--older-than", command->older_than, "Time without use: a number with s, m, h or d")
        ->type_name("AGE");
    prune->add_option("--arch", command->arch, "Only kernels for this architecture [all]")->type_name("sm_90a");
    prune->add_flag("--dry-run", command->dry_run, "Say what would be removed");
    CLI::App* clear = add_action(
        *cache, run, command, "clear",
        "Remove kernels, which are compiled again when needed, or tuning records, which are measured again, of the "
        "writable layer; those of read-only layers and those that come with smlora stay",
        run_clear);
    clear->add_flag("-y,--yes", command->yes, "Do not ask");
    clear->add_flag("--dry-run", command->dry_run, "Say what would be removed");
    clear->add_option("what", command->what, "kernels, records or all [kernels]")
        ->type_name("WHAT")
        ->check(CLI::IsMember({"kernels", "records", "all"}).description(""));
}

}  // namespace smlora::tool
