#include "smlora_tune/explanation.hpp"

#include "autotune/tuner.hpp"
#include "engine/engine_impl.hpp"
#include "families/unpack.hpp"
#include "plan/request.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "tuning/bucket.hpp"
#include "tuning/choice.hpp"
#include "util/counted.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace smlora::tool {
namespace {

/// With an even routing.
Load load_of(const Problem& problem, std::int64_t T) {
    Load load;
    load.tokens = T;
    load.rows = T * problem.top_k;
    load.active_experts = std::min(problem.E, load.rows);
    return load;
}

/// Of one kernel. One for rank rows alone reads rows and the adapter and writes the rank rows.
double floor_of(const autotune::KnownWork& work, const Problem& problem, std::int64_t T, const Ceilings& ceilings) {
    const Load load = load_of(problem, T);
    switch (work.role) {
        case plan::Role::product:
        case plan::Role::decoding:
            return floor_seconds(work.slot.starts_with("forward") ? (problem.R > 0 ? Op::forward : Op::base) : Op::dx,
                                 problem, load, ceilings);
        case plan::Role::gradients:
            return floor_seconds(Op::lora_grad, problem, load, ceilings);
        default:
            break;
    }
    const bool xa = work.role == plan::Role::xa;
    const auto width = static_cast<double>(xa ? problem.K : problem.N);
    const auto rows = static_cast<double>(load.rows);
    const auto rank = static_cast<double>(padded_rank(problem));
    const auto read = static_cast<double>((xa ? problem.x_rows : problem.y_rows) == RowOrder::token ? T : load.rows);
    const double bytes = 2 * (read * width + static_cast<double>(load.active_experts) * rank * width + rows * rank);
    return std::max(2 * rows * width * rank / ceilings.flop_per_second, bytes / ceilings.bytes_per_second);
}

/// `unfit`: why what is recorded does not hold here; empty without such a record.
std::string source_of(const autotune::KnownWork& work, const std::string& unfit) {
    if (work.near() != nullptr) {
        const tuning::RecordName& from = work.near()->name;
        std::string text = "recorded for about " + util::counted(tuning::tokens_of(from.bucket), "token");
        if (from.problem != work.name.problem) text += fmt::format(" of {}, whose records are used here", from.problem);
        if (from.bucket != work.name.bucket) text += ", the nearest measured number";
        return text;
    }
    if (work.tuning() == nullptr) {
        return "the heuristic choice: nothing is recorded" + (unfit.empty() ? "" : " that holds here (" + unfit + ")");
    }
    const std::string record = fmt::format(
        "{} on {} with {}, routing {}", work.tuning()->complete ? "recorded" : "recorded in part", work.tuning()->date,
        util::counted(work.tuning()->workload.tokens, "token"), work.tuning()->workload.routing);
    if (!work.tuning()->choice) {
        return fmt::format("{}: {}, so the heuristic choice is used", record,
                           tuning::judge(work.tuning()->trials).reason);
    }
    if (!work.choice()) return record + ", but that choice is not available here, so the heuristic choice is used";
    return record;
}

/// What runs the choice: that for decoding is the product, unless it unpacks.
plan::Role role_of(const autotune::KnownWork& work, const plan::Plan& plan) {
    if (work.role != plan::Role::decoding) return work.role;
    return plan.has(plan::Role::unpack) ? plan::Role::unpack : plan::Role::product;
}

/// The kernels of the choice: from the cache, else compiled.
void add_kernels(Explanation& explanation, const Engine& engine, const plan::Plan& plan, const gpu::Arch& arch) {
    const plan::Role role = role_of(explanation.work, plan);
    if (!plan.has(role)) return;
    const jit::KernelSpec& spec = plan.at(role).spec;
    try {
        const jit::CompileResult result = engine.impl().kernels.ensure_cached(spec, arch);
        explanation.kernels.push_back({jit::readable(spec), result.registers, result.spill_bytes,
                                       result.shared_bytes + static_cast<std::int64_t>(spec.dynamic_shared),
                                       spec.threads});
    } catch (const Error& error) {
        if (error.code() != ErrorCode::compile && error.code() != ErrorCode::jit_off) throw;
        explanation.kernels_error = error.what();
    }
}

/// What SMLORA_TUNING=off uses.
void leave_records(autotune::KnownWork& work) {
    work.knowledge = autotune::Unmeasured{};
    work.begun.reset();
}

}  // namespace

std::optional<Unpacking> explain_unpacking(const Engine& engine, const Problem& problem, const Ceilings& ceilings) {
    const auto unpack = plan::aligned_unpack(problem, engine.impl().unpack_limit);
    if (!unpack) return std::nullopt;
    const std::int64_t experts = unpack->slice > 0 ? unpack->slice : problem.E;
    return Unpacking{.weights = problem.weights,
                     .experts = experts,
                     .slices = (problem.E + experts - 1) / experts,
                     .bytes = families::unpacked_bytes(problem, experts),
                     .packed_bytes = static_cast<double>(problem.E) * packed_bytes(problem),
                     .floor_seconds = floor_seconds(Op::unpack, problem, {}, ceilings)};
}

std::vector<Explanation> explain(const Engine& engine, const Problem& problem, std::int64_t T,
                                 const gpu::DeviceFacts& facts, const Ceilings& ceilings) {
    std::vector<Explanation> explanations;
    for (const plan::Request& request : plan::step_requests(problem, T, engine.impl().unpack_limit)) {
        plan::Choices choices;
        std::vector<autotune::KnownWork> works = autotune::tuner_of(engine).look_up(problem, request, facts);
        for (autotune::KnownWork& work : works) {
            if (engine.impl().options.tuning == TuningPolicy::off) leave_records(work);
            choices.set(work.role, work.choice());
        }
        const plan::Plan plan = plan::make_plan(problem, request, facts, choices);
        for (autotune::KnownWork& work : works) {
            const auto [recorded, asked] = plan::recorded_as(problem, request, work.role);
            Explanation one;
            one.source = source_of(work, autotune::tuner_of(engine).why_unfit(work));
            const tuning::Configuration used = plan::configuration_for(recorded, asked, work.role, facts, choices);
            one.lines = standings(work, used);
            if (const tuning::Candidate* candidate = tuning::find_legal(work.space, used)) one.used = candidate->name;
            one.floor_seconds = floor_of(work, recorded, T, ceilings);
            one.work = std::move(work);
            add_kernels(one, engine, plan, facts.arch);
            explanations.push_back(std::move(one));
        }
    }
    return explanations;
}

}  // namespace smlora::tool
