// smlora-tune carry: what was measured before a change of kernel templates, for afterwards. For tools/carry_records.
#include "autotune/record_check.hpp"
#include "cache/layer.hpp"
#include "engine/engine_impl.hpp"
#include "jit/templates.hpp"
#include "plan/search_space.hpp"
#include "smlora_tune/command.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/progress.hpp"
#include "smlora_tune/publish.hpp"
#include "tuning/bucket.hpp"
#include "tuning/bundle.hpp"
#include "util/counted.hpp"
#include "util/files.hpp"
#include "util/hash.hpp"
#include "util/json.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

namespace smlora::tool {
namespace {

constexpr const char* carry_footer =
    R"(First with the templates of before and --codes, then with those of now and --before; SMLORA_TEMPLATE_DIR names a
folder of templates. A tuning is carried over when every kernel of every candidate has the same machine code. Needs
NVRTC and no GPU. What was compiled already is in the cache: an interrupted run goes on where it was. With --other, which
names the templates of the other run, kernels are not compiled whose templates say the same there.)";

struct CarryCommand {
    CommonOptions common;
    std::string bundle;
    std::string codes;
    std::string before;
    std::string other;
    bool drop = false;
};

/// Not ordered: a bundle has more tunings than members that an ordered object may have.
using Json = nlohmann::json;

std::string read_text(const std::string& file, std::uint64_t most_bytes) {
    std::string text;
    util::FileStatus status;
    if (const int error = util::read_file(util::real_file_system(), util::At(file), most_bytes, text, status)) {
        throw Error(ErrorCode::io,
                    error == -EFBIG
                        ? fmt::format("{}: expected at most {} bytes, got {}", file, most_bytes, status.size)
                        : fmt::format("{}: cannot be read: {}", file, util::describe_error(error)));
    }
    return text;
}

std::string name_of(const tuning::RecordName& name, const std::string& slot) {
    return fmt::format("{}, {}, {}", name.problem, util::counted(tuning::tokens_of(name.bucket), "token"), slot);
}

/// A kernel that candidates need, and what its machine code is.
struct Kernel {
    jit::KernelSpec spec;
    gpu::Arch arch;
    std::string code = {};  ///< or why there is none
};

/// Families whose templates are the same in two places.
class SameTemplates {
 public:
    /// An empty folder: none.
    explicit SameTemplates(const std::string& folder) {
        if (!folder.empty()) other_.emplace(folder);
    }

    /// The digest of the family's templates if both places have the same, or nothing.
    [[nodiscard]] std::optional<std::string> digest(const std::string& family) {
        if (!other_) return std::nullopt;
        const auto [entry, is_new] = known_.try_emplace(family);
        if (is_new && other_->text(family + ".cuh")) {
            const std::string own = jit::digest(jit::Templates::from_environment().closure(family + ".cuh"));
            if (own == jit::digest(other_->closure(family + ".cuh"))) entry->second = own;
        }
        return entry->second;
    }

 private:
    std::optional<jit::Templates> other_;
    std::map<std::string, std::optional<std::string>> known_;
};

/// The kernels of every candidate of a bundle, each once.
class Kernels {
 public:
    /// The texts by which codes() knows them.
    std::vector<std::string> add(const autotune::RecordedWork& work, const tuning::Configuration& candidate) {
        std::vector<std::string> names;
        for (const jit::KernelSpec& spec : work.kernels(candidate)) {
            names.push_back(fmt::format("{} {}", work.facts().arch.name(), jit::source(spec)) +
                            fmt::format(" {} {}", spec.threads, spec.dynamic_shared));
            kernels_.try_emplace(names.back(), Kernel{spec, work.facts().arch});
        }
        return names;
    }

    /// All but those of the same templates, whose codes are what they are made from.
    void compile(const Engine& engine, SameTemplates same) {
        std::vector<Kernel*> all;
        for (auto& [name, kernel] : kernels_) {
            if (const auto digest = same.digest(kernel.spec.family)) {
                kernel.code = fmt::format("templates {}, kernel {}", *digest, util::xxh128_hex(name));
            } else {
                all.push_back(&kernel);
            }
        }
        print_remark("smlora-tune: {} to compile\n", util::counted(all.size(), "kernel"));
        ProgressLine line(stderr);
        std::atomic<std::size_t> done = 0;
        engine.impl().threads.parallel_for(static_cast<std::int64_t>(all.size()), [&](std::int64_t at) {
            Kernel& kernel = *all[static_cast<std::size_t>(at)];
            try {
                kernel.code = engine.impl().kernels.machine_code(kernel.spec, kernel.arch);
            } catch (const Error& error) {
                if (error.code() != ErrorCode::compile) throw;
                kernel.code = "does not compile";
            }
            line.update(++done, all.size(), jit::readable(kernel.spec));
        });
        line.finish();
    }

    [[nodiscard]] const std::string& code(const std::string& name) const { return kernels_.at(name).code; }
    [[nodiscard]] std::size_t count() const { return kernels_.size(); }

 private:
    std::map<std::string, Kernel> kernels_;
};

/// By tuning, {"templates": digest, "candidates": {name: [code, ..]}}.
using Codes = std::map<std::string, Json>;

Codes codes_of(const std::vector<tuning::Record>& records, const Engine& engine, const std::string& other) {
    Kernels kernels;
    Codes codes;
    for (const tuning::Record& record : records) {
        for (const tuning::Tuning& tuning : record.tunings) {
            Json& json = codes[name_of(record.name, tuning.slot)];
            std::string why;
            const auto work = autotune::RecordedWork::of(record.name, tuning, why);
            if (!work) {
                json["why"] = why;
                continue;
            }
            try {
                json["templates"] = engine.impl().kernels.template_digest(plan::families_of(work->space()));
            } catch (const Error& error) {  // a family that is not on both sides
                json["why"] = error.what();
                continue;
            }
            for (const tuning::Trial& trial : tuning.trials) {
                json["candidates"][trial.candidate.name] = kernels.add(*work, trial.candidate.configuration);
            }
        }
    }
    print_remark("smlora-tune: {}\n", util::counted(kernels.count(), "kernel"));
    kernels.compile(engine, SameTemplates(other));
    for (auto& [name, json] : codes) {
        if (!json.contains("candidates")) continue;
        for (auto& candidate : json["candidates"]) {
            for (auto& kernel : candidate) kernel = kernels.code(kernel.get<std::string>());
        }
    }
    return codes;
}

/// Why a tuning cannot be carried over; empty when it can.
std::string refusal(const tuning::Tuning& tuning, const Json& before, const Json& now) {
    if (!before.is_object()) return "is new";
    for (const Json* side : {&before, &now}) {
        if (side->contains("why")) return (*side)["why"].get<std::string>();
    }
    if (before["templates"] != tuning.environment.templates) return "was not measured with the templates of before";
    for (const tuning::Trial& trial : tuning.trials) {
        const std::string& name = trial.candidate.name;
        if (!before["candidates"].contains(name) || now["candidates"][name].empty()) {
            return fmt::format("{} has no kernels to compare", name);
        }
        if (before["candidates"][name] != now["candidates"][name]) return fmt::format("{} differs", name);
    }
    return {};
}

/// Sets the digests of what can be carried over, and says what cannot; how many those are.
std::size_t carry(std::vector<tuning::Record>& records, const Json& before, const Codes& now, bool drop) {
    std::size_t carried = 0;
    std::size_t refused = 0;
    for (tuning::Record& record : records) {
        std::erase_if(record.tunings, [&](tuning::Tuning& tuning) {
            const std::string name = name_of(record.name, tuning.slot);
            const Json known = before.contains(name) ? before[name] : Json();
            const std::string why = refusal(tuning, known, now.at(name));
            if (why.empty()) {
                tuning.environment.templates = now.at(name)["templates"];
                ++carried;
                return false;
            }
            print_results("{}: {}\n", name, why);
            ++refused;
            return drop;
        });
    }
    print_results("{} carried over, {} {}\n", util::counted(carried, "tuning"), refused,
                  drop ? "left out" : "left as they were");
    return refused;
}

ExitCode run_carry(const CarryCommand& command) {
    if (command.codes.empty() == command.before.empty()) {
        throw UsageError("carry: expected either --codes or --before");
    }
    std::string why;
    const std::optional<tuning::Bundle> bundle =
        tuning::Bundle::parse(read_text(command.bundle, cache::largest_record), why);
    if (!bundle) throw Error(ErrorCode::io, fmt::format("{}: {}", command.bundle, why));
    std::vector<tuning::Record> records = bundle->records();
    const Engine engine(engine_options(command.common, Backend::cpu, 0, 0));
    const Codes now = codes_of(records, engine, command.other);
    const std::string compiler = engine.impl().kernels.compiler_version();
    if (!command.codes.empty()) {
        publish("codes", command.codes, Json{{"compiler", compiler}, {"tunings", now}}.dump(1) + "\n");
        return ExitCode::ok;
    }
    const Json before = util::parse_json<Json>(read_text(command.before, util::most_json_bytes));
    if (!before.is_object() || !before.contains("tunings") || before.value("compiler", "") != compiler) {
        throw Error(ErrorCode::io, fmt::format("{}: expected the codes of compiler {}", command.before, compiler));
    }
    const std::size_t refused = carry(records, before["tunings"], now, command.drop);
    publish("bundle", command.bundle, tuning::bundle_text(bundle->gpu(), records));
    return refused == 0 ? ExitCode::ok : ExitCode::failure;
}

}  // namespace

void add_carry(CLI::App& app, Run& run) {
    auto command = std::make_shared<CarryCommand>();
    CLI::App* sub = app.add_subcommand("carry", "Keep tunings whose kernels' machine code is as it was");
    sub->footer(carry_footer);
    sub->group("");  // for those who work on the templates: not in the tool's help
    sub->add_option("bundle", command->bundle, "The bundle")->required()->type_name("FILE");
    sub->add_option("--codes", command->codes, "Write what its candidates compile to")->type_name("FILE");
    sub->add_option("--before", command->before, "Carry over what compiles to the same as in this file")
        ->type_name("FILE");
    sub->add_option("--other", command->other, "The templates of the other run, those of now or of before")
        ->type_name("FOLDER");
    sub->add_flag("--drop", command->drop, "Leave out what cannot be carried over");
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_carry(*command); }; });
}

}  // namespace smlora::tool
