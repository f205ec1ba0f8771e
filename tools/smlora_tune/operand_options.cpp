#include "smlora_tune/operand_options.hpp"

#include "smlora_tune/number_checks.hpp"

#include <map>

namespace smlora::tool {
namespace {

const std::map<std::string, workload::AdapterLayout> b_layouts{{"enr", workload::AdapterLayout::contiguous},
                                                               {"ner", workload::AdapterLayout::seed},
                                                               {"nre", workload::AdapterLayout::peft}};

}  // namespace

const std::map<std::string, tuning::Skew>& skews() {
    static const std::map<std::string, tuning::Skew> names{
        {"uniform", tuning::Skew::uniform}, {"zipf", tuning::Skew::zipf}, {"one", tuning::Skew::one}};
    return names;
}

void add_operand_options(CLI::App& app, OperandCommandOptions& options) {
    const std::string group = "Operands";
    app.add_option("--b-layout", options.b_layout,
                   "How B lies in memory: enr [E, N, R], ner [N, E R] or nre [N, R E] (PEFT)")
        ->type_name("LAYOUT")
        ->check(CLI::IsMember({"enr", "ner", "nre"}).description(""))
        ->capture_default_str()
        ->group(group);
    app.add_option("--skew", options.skew, "How tokens choose experts: uniform, zipf, or one for all")
        ->type_name("SKEW")
        ->check(CLI::IsMember(skews()).description(""))
        ->capture_default_str()
        ->group(group);
    app.add_option("--left-out", options.left_out, "Share of entries that are -1, as those of experts on another rank")
        ->type_name("SHARE")
        ->check(share())
        ->capture_default_str()
        ->group(group);
    app.add_option("--seed", options.seed, "Seed of all random numbers")
        ->type_name("N")
        ->check(whole_number(0))
        ->capture_default_str()
        ->group(group);
}

OperandOptions operand_options(const OperandCommandOptions& options) {
    OperandOptions result;
    result.adapter = b_layouts.at(options.b_layout);
    result.skew = skews().at(options.skew);
    result.left_out = options.left_out;
    result.seed = options.seed;
    return result;
}

}  // namespace smlora::tool
