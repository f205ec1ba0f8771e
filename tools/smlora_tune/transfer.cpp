// smlora-tune export and import: kernels and tuning records from one machine to another.
#include "smlora_tune/archive.hpp"
#include "smlora_tune/command.hpp"
#include "smlora_tune/units.hpp"

#include "cache/layer.hpp"
#include "engine/engine_impl.hpp"
#include "tune/record_store.hpp"
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
};

constexpr const char* export_footer = R"(Everything that this machine finds, in all layers of the cache.

Example:
  smlora-tune export h200.tar.gz --only records)";

constexpr const char* import_footer =
    R"(An archive with a member that is damaged or does not belong there is refused as a whole. Kernels and
complete tunings that are here already stay. Import only what you trust: kernels are code that runs on your GPU.

Example:
  smlora-tune import h200.tar.gz)";

void warn_of_left_out(const std::filesystem::path& file, const std::string& why) {
    fmt::print(stderr, "smlora-tune: warning: {} is left out: {}\n", file.string(), why);
}

std::vector<ArchiveMember> kernels_of(const Engine& engine) {
    util::FileSystem& files = util::real_file_system();
    std::map<std::string, std::string> found;  // by key, so that the same cache gives the same file
    for (const CacheLayer& layer : cache_layers(engine)) {
        for (const cache::StoredFile& stored : cache::scan(files, layer.root).entries) {
            if (found.contains(stored.key)) continue;  // it is in an upper layer
            const cache::Reading reading = cache::read_entry(files, layer.root, stored.key);
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

/// The records of all layers, what several of them hold of one in one.
std::vector<ArchiveMember> records_of(const Engine& engine) {
    std::map<std::string, tune::Record> merged;
    const std::vector<cache::RecordText> stored = engine.impl().cache.list_records();
    // From the bottom up: the upper layer's tuning of the same environment takes the place of the lower one's, unless
    // only that is complete. RecordStore::find chooses so.
    for (auto text = stored.rbegin(); text != stored.rend(); ++text) {
        std::string why;
        const auto record = tune::parse_record(text->text, why);
        if (!record || record->name.key() != text->key) {
            warn_of_left_out(text->file, record ? "it is the record of something else" : why);
            continue;
        }
        tune::Record& target = merged.try_emplace(text->key, tune::Record{record->name, {}}).first->second;
        for (const tune::Tuning& tuning : record->tunings) {
            const tune::Tuning* below = target.find(tuning.slot, tuning.environment);
            if (below == nullptr || tuning.complete || !below->complete) target.put(tuning);
        }
    }
    std::vector<ArchiveMember> members;
    for (const auto& [key, record] : merged) {
        members.push_back(
            {fmt::format("tuning/{}/{}.json", cache::record_folder(record.name.gpu), key), tune::record_text(record)});
    }
    return members;
}

ExitCode run_export(const TransferCommand& command) {
    const Engine engine(engine_options(command.common, Backend::cpu, 0, 1));
    std::vector<ArchiveMember> members;
    if (command.only != "kernels") members = records_of(engine);
    const std::size_t records = members.size();
    if (command.only != "records") {
        for (ArchiveMember& kernel : kernels_of(engine)) members.push_back(std::move(kernel));
    }
    write_archive(command.file, members);
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("export");
        document["file"] = command.file;
        document["kernels"] = members.size() - records;
        document["records"] = records;
        document["bytes"] = std::filesystem::file_size(command.file);
        print_json(document);
    } else {
        fmt::print("{} kernels and {} records in {}, {}\n", members.size() - records, records, command.file,
                   bytes_text(std::filesystem::file_size(command.file)));
    }
    return ExitCode::ok;
}

struct Imported {
    std::size_t kernels = 0;
    std::size_t kept_kernels = 0;  ///< that were here
    std::size_t tunings = 0;
    std::size_t kept_tunings = 0;  ///< that were complete here
    std::size_t failed = 0;        ///< that could not be stored
};

/// A member that was understood.
struct Checked {
    std::string key;
    std::optional<cache::KernelEntry> kernel;
    tune::Record record;
};

Checked check(const ArchiveMember& member, const std::string& file) {
    const MemberName name = parse_member_path(file, member.path);
    Checked checked{name.key, std::nullopt, {}};
    std::string why;
    if (!name.record) {
        checked.kernel = cache::decode(member.bytes, why);
        const bool own = checked.kernel && cache::encode_for(name.key, *checked.kernel) == member.bytes;
        if (checked.kernel && !own) why = "it is the kernel of another key";
    } else if (auto record = tune::parse_record(member.bytes, why)) {
        if (record->name.key() != name.key || cache::record_folder(record->name.gpu) != name.folder) {
            why = "it is the record of another problem or GPU";
        }
        checked.record = std::move(*record);
    }
    if (!why.empty()) throw Error(ErrorCode::io, fmt::format("archive {}: \"{}\": {}", file, member.path, why));
    return checked;
}

/// Throws Error{io} when there is something to store and the cache takes nothing.
Imported store(const std::vector<Checked>& all, const Engine& engine) {
    cache::Cache& cache = engine.impl().cache;
    tune::RecordStore records(cache, engine.impl().log);
    bool asked = false;
    const auto before_storing = [&] {
        if (!std::exchange(asked, true)) cache.require_writable();
    };
    Imported done;
    for (const Checked& one : all) {
        if (one.kernel) {
            if (cache.load(one.key)) {
                ++done.kept_kernels;
                continue;
            }
            before_storing();
            ++(cache.store(one.key, *one.kernel) ? done.kernels : done.failed);
            continue;
        }
        records.with_lock(one.record.name, [&] {
            for (const tune::Tuning& tuning : one.record.tunings) {
                const auto here = records.find(one.record.name, tuning.slot, tuning.environment);
                if (here && (here->complete || !tuning.complete)) {
                    ++done.kept_tunings;
                    continue;
                }
                before_storing();
                ++(records.save(one.record.name, tuning) ? done.tunings : done.failed);
            }
        });
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
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("import");
        document["file"] = command.file;
        document["kernels"] = done.kernels;
        document["kept_kernels"] = done.kept_kernels;
        document["tunings"] = done.tunings;
        document["kept"] = done.kept_tunings;
        document["failed"] = done.failed;
        print_json(document);
    } else {
        fmt::print("{} kernels and {} tunings imported, {} kernels and {} tunings were here already\n", done.kernels,
                   done.tunings, done.kept_kernels, done.kept_tunings);
    }
    if (done.failed > 0) {
        throw Error(ErrorCode::io, fmt::format("cache {}: {} kernels and tunings of archive {} could not be stored",
                                               cache_layers(engine).front().root.string(), done.failed, command.file));
    }
    return ExitCode::ok;
}

void add(CLI::App& app, Run& run, const char* name, const char* description, const char* footer,
         ExitCode (*action)(const TransferCommand&)) {
    auto command = std::make_shared<TransferCommand>();
    CLI::App* sub = app.add_subcommand(name, description);
    sub->footer(footer);
    sub->add_option("file", command->file, "The archive, a gzipped tar")->required()->type_name("FILE");
    sub->add_option("--only", command->only, "kernels or records [both]")
        ->type_name("WHAT")
        ->check(CLI::IsMember({"kernels", "records"}).description(""));
    add_common_options(*sub, command->common);
    sub->callback([command, action, &run] { run = [command, action] { return action(*command); }; });
}

}  // namespace

void add_export(CLI::App& app, Run& run) {
    add(app, run, "export", "Kernels and tuning records of the cache into one archive", export_footer, run_export);
}

void add_import(CLI::App& app, Run& run) {
    add(app, run, "import", "Kernels and tuning records of an archive into the cache", import_footer, run_import);
}

}  // namespace smlora::tool
