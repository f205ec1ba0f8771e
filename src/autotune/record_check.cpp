#include "autotune/record_check.hpp"

#include "gpu/device.hpp"
#include "plan/search_space.hpp"
#include "tune/record.hpp"

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

void check_tuning(const tune::Tuning& tuning, const tune::RecordName& name, const Problem& problem,
                  const jit::KernelLibrary& kernels, RecordCheck& check) {
    const auto complain = [&](std::vector<std::string>& list, const std::string& what) {
        list.push_back(fmt::format("{}: {}", tuning.slot, what));
    };
    const std::optional<plan::NamedWork> work = plan::work_called(tuning.slot, problem, name.bucket);
    if (!work) return complain(check.unsound, "is no piece of work of this problem");
    if (tuning.environment.gpu != name.gpu) return complain(check.unsound, "was measured on another GPU");
    gpu::DeviceFacts facts;
    try {
        facts = gpu::facts_of(gpu::arch_from_name(tuning.environment.arch));
    } catch (const Error& error) {
        return complain(check.unsound, error.what());
    }
    facts.name = tuning.environment.gpu;
    facts.multiprocessors = tuning.environment.multiprocessors;
    const tune::SearchSpace space = plan::search_space(problem, work->request, work->role, facts);
    const std::string digest = kernels.template_digest(plan::families_of(space));
    if (tuning.environment.templates != digest) {
        complain(check.stale,
                 fmt::format("was measured with templates {}, which are {} now", tuning.environment.templates, digest));
    }
    if (!tuning.choice) return complain(check.unsound, "has no choice");
    if (tune::find_legal(space, *tuning.choice) == nullptr) {
        complain(check.unsound, "chose what is no legal candidate: " + tune::to_json(*tuning.choice).dump());
    }
}

}  // namespace

std::optional<Problem> problem_from_text(const std::string& text) {
    Problem problem;
    std::istringstream words(text);
    std::string word;
    try {
        while (words >> word) read_word(word, problem);
        validate(problem);
    } catch (const Error&) {
        return std::nullopt;
    }
    return to_string(problem) == text ? std::optional(problem) : std::nullopt;
}

RecordCheck check_record(const cache::RecordText& stored, const jit::KernelLibrary& kernels) {
    RecordCheck check;
    std::string why;
    const std::optional<tune::Record> record = tune::parse_record(stored.text, why);
    if (!record) {
        check.unsound.push_back(why);
        return check;
    }
    if (record->name.key() != stored.key || cache::record_folder(record->name.gpu) != stored.folder) {
        check.unsound.emplace_back("it lies under the name of another record");
    }
    const std::optional<Problem> problem = problem_from_text(record->name.problem);
    if (!problem) {
        check.unsound.push_back(fmt::format("\"{}\" is no problem", record->name.problem));
        return check;
    }
    for (const tune::Tuning& tuning : record->tunings) check_tuning(tuning, record->name, *problem, kernels, check);
    return check;
}

}  // namespace smlora::autotune
