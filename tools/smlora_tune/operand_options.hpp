// How the operands of verify and bench are made up.
#pragma once

#include "smlora_tune/operands.hpp"

#include <CLI/App.hpp>

#include <cstdint>
#include <map>
#include <string>

namespace smlora::tool {

struct OperandCommandOptions {
    std::string b_layout = "ner";
    std::string skew = "uniform";
    double left_out = 0;
    std::uint64_t seed = 0;
};

/// How tokens choose experts, by the names of --skew.
[[nodiscard]] const std::map<std::string, tuning::Skew>& skews();

void add_operand_options(CLI::App& app, OperandCommandOptions& options);

/// Everything but T.
[[nodiscard]] OperandOptions operand_options(const OperandCommandOptions& options);

}  // namespace smlora::tool
