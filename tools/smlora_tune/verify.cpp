// smlora-tune verify: are the results right, on this device, for this shape?
#include "smlora_tune/command.hpp"
#include "smlora_tune/number_checks.hpp"
#include "smlora_tune/operand_options.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/progress.hpp"
#include "smlora_tune/shape_options.hpp"
#include "smlora_tune/table.hpp"
#include "smlora_tune/terminal.hpp"
#include "smlora_tune/verification.hpp"
#include "util/counted.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace smlora::tool {
namespace {

struct VerifyCommand {
    CommonOptions common;
    DeviceOptions device;
    ShapeOptions shape;
    OperandCommandOptions operands;
    std::int64_t sample = 64;
};

constexpr const char* verify_footer =
    R"(Runs every operation twice on random inputs and compares the results with the formulas, computed in fp64 on the
inputs as rounded. The relative error in the Euclidean norm may be 4e-3 in bf16, 1e-3 in fp16, 1e-6 in fp32 (growing
with the square root of the length of the sums beyond 1024) and 1e-12 in fp64, three times that for results of less
than 64 numbers; that of a single row may be ten times as large. route, group, scaling 0 and the decoding of quantised
weights must be exact. Both runs must give the same bits, and every element must be written. The exit code is 1 if
anything is wrong.
The kernels are those that are recorded to be fastest, or predicted to be where there is no record. Nothing is tuned
unless SMLORA_TUNING=first-use.

Examples:
  smlora-tune verify --shape 128,2048,1536,16,8 --tokens 1,2048
  smlora-tune verify --model gpt-oss-20b --device cpu --skew zipf --left-out 0.1
  smlora-tune verify --shape 128,2048,1536,16,8 --weights nf4:64:double)";

struct VerifiedCase {
    NamedProblem item;
    std::int64_t tokens = 0;
    std::vector<Check> checks;

    [[nodiscard]] bool ok() const {
        return std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.ok(); });
    }
};

std::string verdict(const Check& check) {
    if (check.ok()) return "ok";
    if (check.non_finite > 0)
        return fmt::format("WRONG: {} not finite or not written", util::counted(check.non_finite, "element"));
    if (!check.repeatable) return "WRONG: a second run differs";
    if (check.exact) return "WRONG: not equal";
    return check.difference.relative > check.tolerance ? "WRONG: out of tolerance" : "WRONG: a row is out of tolerance";
}

nlohmann::ordered_json to_json(const VerifiedCase& done) {
    nlohmann::ordered_json json = json_of(done.item);
    json["tokens"] = done.tokens;
    json["ok"] = done.ok();
    json["checks"] = nlohmann::ordered_json::array();
    for (const Check& check : done.checks) {
        // JSON has no infinity: the library writes null for it.
        json["checks"].push_back({{"operation", check.operation},
                                  {"output", check.output},
                                  {"exact", check.exact},
                                  {"error", check.difference.relative},
                                  {"worst_row", check.difference.worst_row},
                                  {"tolerance", check.tolerance},
                                  {"repeatable", check.repeatable},
                                  {"non_finite", check.non_finite},
                                  {"ok", check.ok()}});
    }
    return json;
}

void print_text(const VerifiedCase& done, const Style& style) {
    print_results("{}, {}\n", title_of(done.item), util::counted(done.tokens, "token"));
    Table table({{"operation"},
                 {"output"},
                 {"error", Align::right},
                 {"tolerance", Align::right},
                 {"worst row", Align::right},
                 {"verdict"}});
    for (const Check& check : done.checks) {
        const bool exact = check.exact && check.ok();
        table.add({check.operation, check.output, exact ? "exact" : fmt::format("{:.2e}", check.difference.relative),
                   check.exact ? "exact" : fmt::format("{:.2g}", check.tolerance),
                   exact ? "exact" : fmt::format("{:.2e}", check.difference.worst_row),
                   check.ok() ? style.good(verdict(check)) : style.bad(verdict(check))});
    }
    print_results("{}\n", table.text());
}

ExitCode run_verify(const VerifyCommand& command) {
    const DeviceChoice device = parse_device(command.device.device);
    const std::vector<NamedProblem> problems = resolve(command.shape, device.backend);
    std::vector<std::int64_t> tokens = command.shape.tokens;
    if (tokens.empty()) tokens.push_back(device.backend == Backend::cpu ? default_tokens_cpu : default_tokens_gpu);
    OperandOptions options = operand_options(command.operands);
    options.unpacking = true;

    ProgressLine line(stderr);
    const auto log = [&line](const std::string& text) { line.print(text); };
    const Session session(engine_options(command.common, device.backend, device.ordinal, command.device.threads, log));
    print_remark("device  {}\nseed    {}, routing {}\n", session.device_name(), command.operands.seed,
                 command.operands.skew);
    const Style style(stdout);
    std::vector<VerifiedCase> cases;
    const std::size_t total = problems.size() * tokens.size();
    for (const NamedProblem& item : problems) {
        for (const std::int64_t T : tokens) {
            options.T = T;
            const std::size_t done = cases.size();
            cases.push_back(
                {item, T, verify_problem(session, item.problem, options, command.sample, [&](std::string_view what) {
                     line.announce(done, total, fmt::format("{}: {}", item.name, what));
                 })});
            line.finish();
            if (!command.common.json) print_text(cases.back(), style);
        }
    }
    const auto wrong = std::count_if(cases.begin(), cases.end(), [](const VerifiedCase& done) { return !done.ok(); });
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("verify");
        document["device"] = session.device_name();
        document["seed"] = command.operands.seed;
        document["skew"] = command.operands.skew;
        document["ok"] = wrong == 0;
        document["cases"] = nlohmann::ordered_json::array();
        for (const VerifiedCase& done : cases) document["cases"].push_back(to_json(done));
        print_json(document);
    } else {
        print_results("{}\n", wrong == 0 ? "All results are within tolerance."
                                         : fmt::format("Wrong results: {} of {}.", wrong,
                                                       util::counted(cases.size(), "problem")));
    }
    return wrong == 0 ? ExitCode::ok : ExitCode::failure;
}

}  // namespace

void add_verify(CLI::App& app, Run& run) {
    auto command = std::make_shared<VerifyCommand>();
    CLI::App* sub = app.add_subcommand("verify", "Run every operation and compare it with an fp64 reference");
    sub->footer(verify_footer);
    command->shape.has_device = true;
    add_shape_options(*sub, command->shape, fmt::format("{}, on the CPU {}", default_tokens_gpu, default_tokens_cpu));
    sub->add_option("--sample", command->sample,
                    "Tokens to compare with the reference, which takes the CPU long for large shapes; 0: all")
        ->type_name("N")
        ->check(whole_number(0))
        ->capture_default_str();
    add_operand_options(*sub, command->operands);
    add_device_options(*sub, command->device);
    add_common_options(*sub, command->common);
    sub->callback([command, &run] { run = [command] { return run_verify(*command); }; });
}

}  // namespace smlora::tool
