#include "autotune/record_check.hpp"

#include "autotune/measured_work.hpp"
#include "plan/search_space.hpp"
#include "tuning/bucket.hpp"
#include "tuning/record_store.hpp"
#include "util/counted.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>

namespace smlora::autotune {
namespace {

std::optional<std::int64_t> number_after(const std::string& word, std::string_view prefix) {
    if (!word.starts_with(prefix)) return std::nullopt;
    std::int64_t value = 0;
    const char* const end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + prefix.size(), end, value);
    return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

std::optional<RowOrder> row_order(const std::string& text) {
    for (const RowOrder order : {RowOrder::token, RowOrder::scattered, RowOrder::grouped}) {
        if (name(order) == text) return order;
    }
    return std::nullopt;
}

/// Whatever to_string leaves out has its default.
void read_word(const std::string& word, Problem& problem) {
    const std::size_t colon = word.find(':');
    const std::size_t arrow = word.find("->");
    if (const auto E = number_after(word, "E")) {
        problem.E = *E;
    } else if (const auto K = number_after(word, "K")) {
        problem.K = *K;
    } else if (const auto N = number_after(word, "N")) {
        problem.N = *N;
    } else if (const auto R = number_after(word, "R")) {
        problem.R = *R;
    } else if (const auto top_k = number_after(word, "k")) {
        problem.top_k = *top_k;
    } else if (word == "ekn" || word == "enk") {
        problem.weight_layout = word == "ekn" ? WeightLayout::ekn : WeightLayout::enk;
    } else if (word == "bias") {
        problem.bias = true;
    } else if (arrow != std::string::npos) {
        const auto x = row_order(word.substr(0, arrow));
        const auto y = row_order(word.substr(arrow + 2));
        if (x) problem.x_rows = *x;
        if (y) problem.y_rows = *y;
    } else if (colon != std::string::npos) {
        const std::string what = word.substr(0, colon);
        const DType dtype = dtype_from_name(word.substr(colon + 1));
        if (what == "adapter") problem.adapter_dtype = dtype;
        if (what == "index") problem.index_dtype = dtype;
        if (what == "gates") {
            problem.gates = true;
            problem.gate_dtype = dtype;
        }
    } else {
        problem.dtype = problem.adapter_dtype = dtype_from_name(word);
    }
}

/// As to_string has it.
WeightFormat weight_format(const std::string& text) {
    std::istringstream words(text);
    std::string word;
    words >> word;
    WeightFormat format{.encoding = encoding_from_name(word)};
    std::optional<DType> scales;
    while (words >> word) {
        if (word == "block") {
            words >> format.block;
        } else if (word == "double") {
            words >> format.outer_block;
            scales = DType::uint8;
        } else if (word == "parts") {
            words >> format.parts;
        } else if (word == "divisor") {
            format.global_scale = GlobalScale::divisor;
        } else if (word == "arranged") {
            format.arranged = true;
        } else {
            scales = dtype_from_name(word);
        }
    }
    format.scales = scales.value_or(usual_scales(format));
    return format;
}

void check_tuning(const tuning::Tuning& tuning, const tuning::RecordName& name, const jit::KernelLibrary& kernels,
                  RecordCheck& check) {
    const auto complain = [&](std::vector<std::string>& list, const std::string& what) {
        list.push_back(fmt::format("{}, {}, {}: {}", name.problem,
                                   util::counted(tuning::tokens_of(name.bucket), "token"), tuning.slot, what));
    };
    std::string why;
    const std::optional<RecordedWork> work = RecordedWork::of(name, tuning, why);
    if (!work) return complain(check.unsound, why);
    const std::string digest = kernels.template_digest(plan::families_of(work->space()));
    if (tuning.environment.templates != digest) {
        complain(check.stale,
                 fmt::format("was measured with templates {}, which are {} now", tuning.environment.templates, digest));
    }
    if (!tuning.choice) return complain(check.unsound, "has no choice");
    if (tuning::find_legal(work->space(), *tuning.choice) == nullptr) {
        complain(check.unsound, "chose what is no legal candidate: " + tuning::to_json(*tuning.choice).dump());
    }
}

/// The kernels of a plan that a piece of work times.
std::vector<jit::KernelSpec> timed_kernels(const plan::Plan& plan, const std::vector<plan::Role>& roles) {
    std::vector<jit::KernelSpec> specs;
    for (const plan::Role role : roles) {
        if (plan.has(role)) specs.push_back(plan.at(role).spec);
    }
    return specs;
}

}  // namespace

std::optional<Problem> problem_from_text(const std::string& text) {
    Problem problem;
    constexpr std::string_view before_weights = " weights: ";
    const std::size_t weights = std::min(text.find(before_weights), text.size());
    std::istringstream words(text.substr(0, weights));
    std::string word;
    try {
        while (words >> word) read_word(word, problem);
        if (weights < text.size()) problem.weights = weight_format(text.substr(weights + before_weights.size()));
        validate(problem);
    } catch (const Error&) {
        return std::nullopt;
    }
    return to_string(problem) == text ? std::optional(problem) : std::nullopt;
}

RecordCheck check_file(const cache::RecordText& stored, const jit::KernelLibrary& kernels) {
    RecordCheck check;
    std::string why;
    const std::optional<std::vector<tuning::Record>> records = tuning::records_in(stored, why);
    if (!records) check.unsound.push_back(why);
    for (const tuning::Record& record : records.value_or(std::vector<tuning::Record>{})) {
        const RecordCheck one = check_record(record, kernels);
        check.unsound.insert(check.unsound.end(), one.unsound.begin(), one.unsound.end());
        check.stale.insert(check.stale.end(), one.stale.begin(), one.stale.end());
    }
    return check;
}

std::optional<RecordedWork> RecordedWork::of(const tuning::RecordName& name, const tuning::Tuning& tuning,
                                             std::string& why) {
    RecordedWork work;
    const std::optional<Problem> problem = problem_from_text(name.problem);
    const std::optional<plan::NamedWork> named =
        problem ? plan::work_called(tuning.slot, *problem, name.bucket) : std::nullopt;
    if (!problem) {
        why = fmt::format("\"{}\" is no problem", name.problem);
    } else if (!named) {
        why = "is no piece of work of this problem";
    } else if (tuning.environment.gpu != name.gpu) {
        why = "was measured on another GPU";
    }
    if (!why.empty()) return std::nullopt;
    try {
        work.facts_ = gpu::facts_of(gpu::arch_from_name(tuning.environment.arch));
    } catch (const Error& error) {
        why = error.what();
        return std::nullopt;
    }
    work.facts_.name = tuning.environment.gpu;
    work.facts_.multiprocessors = tuning.environment.multiprocessors;
    work.problem_ = *problem;
    work.named_ = *named;
    work.space_ = plan::search_space(work.problem_, work.named_.request, work.named_.role, work.facts_);
    return work;
}

std::vector<jit::KernelSpec> RecordedWork::kernels(const tuning::Configuration& candidate) const {
    const auto& [request, role] = named_;
    const std::vector<plan::Role> roles = measured_work(problem_, request, role, facts_)->roles();
    plan::Choices choices;
    choices.set(role, candidate);
    const plan::Plan plan = plan::make_plan(problem_, request, facts_, choices);
    if (role == plan::Role::decoding || plan.has(role)) return timed_kernels(plan, roles);
    // Rank rows have a kernel of their own behind some products only.
    for (const tuning::Candidate& product : plan::search_space(problem_, request, plan::Role::product, facts_)) {
        if (!product.legal()) continue;
        choices.set(plan::Role::product, product.configuration);
        const plan::Plan other = plan::make_plan(problem_, request, facts_, choices);
        if (other.has(role)) return timed_kernels(other, roles);
    }
    return {};
}

RecordCheck check_record(const tuning::Record& record, const jit::KernelLibrary& kernels) {
    RecordCheck check;
    for (const tuning::Tuning& tuning : record.tunings) check_tuning(tuning, record.name, kernels, check);
    return check;
}

}  // namespace smlora::autotune
