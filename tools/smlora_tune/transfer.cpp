// smlora-tune export and import: kernels and tuning records from one machine to another.
#include "smlora_tune/archive.hpp"
#include "smlora_tune/command.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/publish.hpp"
#include "smlora_tune/units.hpp"

#include "autotune/record_check.hpp"
#include "cache/inspection.hpp"
#include "cache/layer.hpp"
#include "engine/engine_impl.hpp"
#include "tuning/bundle.hpp"
#include "tuning/record_store.hpp"
#include "util/counted.hpp"
#include "util/file_system.hpp"

#include <smlora/cache.hpp>
#include <smlora/error.hpp>

#include <fmt/format.h>

#include <map>
#include <memory>
#include <utility>

namespace smlora::tool {
namespace {

struct TransferCommand {
    CommonOptions common;
    std::string file;
    std::string only;
    std::string bundle;
    std::string gpu;
};

constexpr const char* export_footer =
    R"(Everything that this machine finds, in all layers of the cache. A bundle has the complete tunings of one GPU that
were measured with the kernels of this smlora; as v1/tuning/GPU.jsonl of a folder it is what SMLORA_CACHE_LAYERS can
name.

Examples:
  smlora-tune export h200.tar.gz --only records
  smlora-tune export --bundle NVIDIA_H200.jsonl --gpu "NVIDIA H200")";

constexpr const char* import_footer =
    R"(An archive with a member that is damaged or does not belong there is refused as a whole. Kernels and
complete tunings that are here already stay. Import only what you trust: kernels are code that runs on your GPU.

Example:
  smlora-tune import h200.tar.gz)";

void warn_of_left_out(const std::filesystem::path& file, const std::string& why) {
    print_remark("smlora-tune: warning: {} is left out: {}\n", file.string(), why);
}

/// Throws Error{io} for a folder that cannot be read.
std::vector<ArchiveMember> kernels_of(const Engine& engine) {
    std::map<std::string, std::string> found;  // by key, so that the same cache gives the same file
    for (const cache::Layer& layer : engine.impl().cache.folders()) {
        const cache::Contents contents = cache::scan(layer);
        cache::require_none(contents.unreadable);
        for (const cache::StoredFile& stored : contents.entries) {
            if (found.contains(stored.key)) continue;  // it is in an upper layer
            const cache::Reading reading = cache::read_entry(layer, stored.key);
            if (reading.entry) found[stored.key] = cache::encode_for(stored.key, *reading.entry);
            // Without a reason it was evicted since it was listed.
            if (!reading.why.empty()) warn_of_left_out(stored.file, reading.why);
        }
    }
    std::vector<ArchiveMember> members;
    for (auto& [key, bytes] : found) {
        members.push_back({fmt::format("kernels/{}/{}", key.substr(0, 2), key), std::move(bytes)});
    }
    return members;
}

/// The records of all layers by key, what several of them hold of one in one. Throws Error{io} for a folder that cannot
/// be read.
std::map<std::string, tuning::Record> merged_records(const Engine& engine) {
    std::map<std::string, tuning::Record> merged;
    std::vector<CacheProblem> unreadable;
    const std::vector<cache::RecordText> stored = engine.impl().cache.list_records(&unreadable);
    cache::require_none(unreadable);
    // From the bottom up: the upper layer's tuning of the same environment takes the place of the lower one's, unless
    // only that is complete. RecordStore::find chooses so.
    for (auto text = stored.rbegin(); text != stored.rend(); ++text) {
        std::string why;
        const std::optional<std::vector<tuning::Record>> records = tuning::records_in(*text, why);
        if (!records) {
            warn_of_left_out(text->file, why);
            continue;
        }
        for (const tuning::Record& record : *records) {
            tuning::Record& target =
                merged.try_emplace(record.name.key(), tuning::Record{record.name, {}}).first->second;
            for (const tuning::Tuning& tuning : record.tunings) {
                const tuning::Tuning* below = target.find(tuning.slot, tuning.environment);
                if (below == nullptr || tuning.complete || !below->complete) target.put(tuning);
            }
        }
    }
    return merged;
}

std::size_t tunings_in(const std::vector<tuning::Record>& records) {
    std::size_t count = 0;
    for (const tuning::Record& record : records) count += record.tunings.size();
    return count;
}

/// Takes the complete tunings out of the records; by GPU.
std::map<std::string, std::vector<tuning::Record>> take_complete(std::map<std::string, tuning::Record>& records) {
    std::map<std::string, std::vector<tuning::Record>> complete;
    for (auto& [key, record] : records) {
        tuning::Record done{record.name, {}};
        std::erase_if(record.tunings, [&](const tuning::Tuning& tuning) {
            if (tuning.complete) done.tunings.push_back(tuning);
            return tuning.complete;
        });
        if (!done.tunings.empty()) complete[record.name.gpu].push_back(std::move(done));
    }
    return complete;
}

/// A bundle for each GPU, and a record for each that has tunings which are not complete. `tunings` counts them.
std::vector<ArchiveMember> records_of(const Engine& engine, std::size_t& tunings) {
    std::map<std::string, tuning::Record> records = merged_records(engine);
    std::vector<ArchiveMember> members;
    for (const auto& [gpu, complete] : take_complete(records)) {
        tunings += tunings_in(complete);
        members.push_back(
            {fmt::format("tuning/{}.jsonl", cache::record_folder(gpu)), tuning::bundle_text(gpu, complete)});
    }
    for (const auto& [key, record] : records) {
        if (record.tunings.empty()) continue;
        tunings += record.tunings.size();
        members.push_back({fmt::format("tuning/{}/{}.json", cache::record_folder(record.name.gpu), key),
                           tuning::record_text(record)});
    }
    return members;
}

/// The one that was named, else the only one that has complete tunings.
std::string gpu_of_bundle(const TransferCommand& command,
                          const std::map<std::string, std::vector<tuning::Record>>& complete) {
    std::vector<std::string> gpus;
    for (const auto& [gpu, records] : complete) gpus.push_back(gpu);
    const std::string list = gpus.empty() ? "none" : fmt::format("{}", fmt::join(gpus, ", "));
    if (command.gpu.empty() && gpus.size() == 1) return gpus.front();
    if (command.gpu.empty()) {
        throw UsageError(fmt::format("--gpu: expected one of the GPUs that have complete tunings: {}", list));
    }
    if (!complete.contains(command.gpu)) {
        throw UsageError(
            fmt::format("--gpu: expected one of the GPUs that have complete tunings: {}; got {}", list, command.gpu));
    }
    return command.gpu;
}

ExitCode export_bundle(const TransferCommand& command) {
    const Engine engine(engine_options(command.common, Backend::cpu, 0, 1));
    std::map<std::string, tuning::Record> merged = merged_records(engine);
    std::map<std::string, std::vector<tuning::Record>> complete = take_complete(merged);
    const std::string gpu = gpu_of_bundle(command, complete);
    std::vector<tuning::Record>& records = complete.at(gpu);
    const std::size_t all = tunings_in(records);
    for (tuning::Record& record : records) {
        std::erase_if(record.tunings, [&](const tuning::Tuning& tuning) {
            const autotune::RecordCheck check =
                autotune::check_record(tuning::Record{record.name, {tuning}}, engine.impl().kernels);
            return !check.unsound.empty() || !check.stale.empty();
        });
    }
    const std::size_t kept = tunings_in(records);
    const std::string text = tuning::bundle_text(gpu, records);
    publish("bundle", command.bundle, text);
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("export");
        document["file"] = command.bundle;
        document["gpu"] = gpu;
        document["tunings"] = kept;
        document["left_out"] = all - kept;
        document["bytes"] = text.size();
        print_json(document);
        return ExitCode::ok;
    }
    print_results("{} of {} in {}, {}\n", util::counted(kept, "tuning"), gpu, command.bundle, bytes_text(text.size()));
    if (kept < all) print_results("{} left out: they were measured with other kernels\n", all - kept);
    return ExitCode::ok;
}

ExitCode run_export(const TransferCommand& command) {
    if (command.file.empty() == command.bundle.empty()) {
        throw UsageError("export: expected either the FILE of an archive or --bundle FILE");
    }
    if (!command.bundle.empty()) return export_bundle(command);
    if (!command.gpu.empty()) throw UsageError("--gpu: expected only with --bundle");
    const Engine engine(engine_options(command.common, Backend::cpu, 0, 1));
    remark_missing_layers(engine);
    std::vector<ArchiveMember> members;
    std::size_t tunings = 0;
    if (command.only != "kernels") members = records_of(engine, tunings);
    std::size_t kernels = 0;
    if (command.only != "records") {
        for (ArchiveMember& kernel : kernels_of(engine)) {
            members.push_back(std::move(kernel));
            ++kernels;
        }
    }
    const std::uint64_t bytes = write_archive(command.file, members);
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("export");
        document["file"] = command.file;
        document["kernels"] = kernels;
        document["tunings"] = tunings;
        document["bytes"] = bytes;
        print_json(document);
    } else {
        print_results("{} and {} in {}, {}\n", util::counted(kernels, "kernel"), util::counted(tunings, "tuning"),
                      command.file, bytes_text(bytes));
    }
    return ExitCode::ok;
}

struct Imported {
    std::size_t kernels = 0;
    std::size_t kept_kernels = 0;  ///< that were here
    std::size_t tunings = 0;
    std::size_t kept_tunings = 0;  ///< that were complete here
    std::size_t failed = 0;        ///< that could not be stored
    /// Of those, what is gone again: the cache is over its limit.
    std::size_t evicted_kernels = 0;
    std::size_t evicted_tunings = 0;
};

/// A member that was understood.
struct Checked {
    std::string key;
    std::optional<cache::KernelEntry> kernel;
    std::vector<tuning::Record> records;
};

Checked check(const ArchiveMember& member, const std::string& file) {
    const MemberName name = parse_member_path(file, member.path);
    Checked checked{name.key, std::nullopt, {}};
    std::string why;
    if (!name.record) {
        checked.kernel = cache::decode(member.bytes, why);
        const bool own = checked.kernel && cache::encode_for(name.key, *checked.kernel) == member.bytes;
        if (checked.kernel && !own) why = "it is the kernel of another key";
    } else {
        cache::RecordText stored;
        stored.folder = name.folder;
        stored.key = name.key;
        stored.text = member.bytes;
        if (auto records = tuning::records_in(stored, why)) checked.records = std::move(*records);
    }
    if (!why.empty()) throw Error(ErrorCode::io, fmt::format("archive {}: \"{}\": {}", file, member.path, why));
    return checked;
}

bool is_gone(const cache::Layer& layer, const std::filesystem::path& file) {
    util::FileStatus status;
    return util::is_missing(cache::look_at(layer, file, status));
}

/// Throws Error{io} when there is something to store and the cache takes nothing.
Imported store(const std::vector<Checked>& all, const Engine& engine) {
    cache::Cache& cache = engine.impl().cache;
    tuning::RecordStore records(cache, engine.impl().log);
    const cache::Layer* layer = nullptr;
    const auto before_storing = [&] {
        if (layer != nullptr) return;
        cache.require_writable();
        layer = &cache.folders().front();
    };
    Imported done;
    std::vector<std::filesystem::path> kernels;
    std::map<std::filesystem::path, std::size_t> tunings;  // by the file of their record
    for (const Checked& one : all) {
        if (one.kernel) {
            if (cache.load(one.key)) {
                ++done.kept_kernels;
                continue;
            }
            before_storing();
            if (cache.store(one.key, *one.kernel)) {
                kernels.push_back(cache::entry_file(layer->root, one.key));
            } else {
                ++done.failed;
            }
            continue;
        }
        for (const tuning::Record& record : one.records) {
            records.with_lock(record.name, [&] {
                for (const tuning::Tuning& tuning : record.tunings) {
                    const auto here = records.find(record.name, tuning.slot, tuning.environment);
                    if (here && (here->complete || !tuning.complete)) {
                        ++done.kept_tunings;
                        continue;
                    }
                    before_storing();
                    if (records.save(record.name, tuning)) {
                        ++tunings[cache::record_file(layer->root, cache::record_folder(record.name.gpu),
                                                     record.name.key())];
                    } else {
                        ++done.failed;
                    }
                }
            });
        }
    }
    cache.finish_eviction();
    for (const std::filesystem::path& file : kernels) {
        ++done.kernels;
        if (is_gone(*layer, file)) ++done.evicted_kernels;
    }
    for (const auto& [file, count] : tunings) {
        done.tunings += count;
        if (is_gone(*layer, file)) done.evicted_tunings += count;
    }
    return done;
}

ExitCode run_import(const TransferCommand& command) {
    const Engine engine(engine_options(command.common, Backend::cpu, 0, 1));
    // All of it is checked before any of it is stored.
    std::vector<Checked> all;
    for (const ArchiveMember& member : read_archive(command.file)) {
        const bool record = parse_member_path(command.file, member.path).record;
        if ((record && command.only == "kernels") || (!record && command.only == "records")) continue;
        all.push_back(check(member, command.file));
    }
    const Imported done = store(all, engine);
    const std::uint64_t limit = engine.impl().cache.limit_bytes();
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("import");
        document["file"] = command.file;
        document["kernels"] = done.kernels;
        document["kept_kernels"] = done.kept_kernels;
        document["tunings"] = done.tunings;
        document["kept"] = done.kept_tunings;
        document["failed"] = done.failed;
        document["evicted_kernels"] = done.evicted_kernels;
        document["evicted_tunings"] = done.evicted_tunings;
        document["limit_bytes"] = limit;
        print_json(document);
    } else {
        print_results("{} and {} imported, {} and {} were here already\n", util::counted(done.kernels, "kernel"),
                      util::counted(done.tunings, "tuning"), util::counted(done.kept_kernels, "kernel"),
                      util::counted(done.kept_tunings, "tuning"));
        if (done.evicted_kernels + done.evicted_tunings > 0) {
            print_results(
                "{} of these kernels and {} of these tunings are gone again: the limit of the cache is {}. Import with "
                "a larger SMLORA_CACHE_LIMIT\n",
                done.evicted_kernels, done.evicted_tunings, bytes_text(limit));
        }
    }
    if (done.failed > 0) {
        throw Error(ErrorCode::io, fmt::format("cache {}: {} of archive {} could not be stored",
                                               cache_layers(engine).front().root.string(),
                                               util::counted(done.failed, "member"), command.file));
    }
    return ExitCode::ok;
}

std::shared_ptr<TransferCommand> add(CLI::App& app, Run& run, const char* name, const char* description,
                                     const char* footer, ExitCode (*action)(const TransferCommand&)) {
    auto command = std::make_shared<TransferCommand>();
    CLI::App* sub = app.add_subcommand(name, description);
    sub->footer(footer);
    sub->add_option("file", command->file, "The archive, a gzipped tar")->type_name("FILE");
    sub->add_option("--only", command->only, "kernels or records [both]")
        ->type_name("WHAT")
        ->check(CLI::IsMember({"kernels", "records"}).description(""));
    add_common_options(*sub, command->common);
    sub->callback([command, action, &run] { run = [command, action] { return action(*command); }; });
    return command;
}

}  // namespace

void add_export(CLI::App& app, Run& run) {
    const auto command =
        add(app, run, "export", "Kernels and tuning records of the cache into one archive", export_footer, run_export);
    CLI::App* sub = app.get_subcommand("export");
    sub->add_option("--bundle", command->bundle, "Instead of an archive: the tunings of one GPU, as a layer has them")
        ->type_name("FILE")
        ->excludes("--only");
    sub->add_option("--gpu", command->gpu, "The GPU of the bundle [the only one with tunings]")->type_name("NAME");
}

void add_import(CLI::App& app, Run& run) {
    add(app, run, "import", "Kernels and tuning records of an archive into the cache", import_footer, run_import);
    app.get_subcommand("import")->get_option("file")->required();
}

}  // namespace smlora::tool
