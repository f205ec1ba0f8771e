#include "plan/prewarm_command.hpp"

#include <smlora/encoding.hpp>

#include <fmt/format.h>

#include <variant>

namespace smlora::plan {
namespace {

std::string tokens_option(const Request& request) {
    return std::visit(
        [](const auto& operation) -> std::string {
            if constexpr (requires { operation.bucket; }) {
                return fmt::format(" --tokens {}", std::int64_t{1} << operation.bucket);
            }
            return "";
        },
        request);
}

/// As the option --weights has it.
std::string weights_option(const WeightFormat& format) {
    if (format.encoding == Encoding::plain) return "";
    const WeightFormat usual = usual_format(format.encoding);
    std::string text = fmt::format(" --weights {}", name(format.encoding));
    if (format.block != usual.block) text += fmt::format(":{}", format.block);
    if (format.outer_block != 0) {
        text += ":double";
    } else if (format.scales != usual_scales(format)) {
        text += fmt::format(":{}", name(format.scales));
    }
    if (format.global_scale == GlobalScale::divisor) text += ":divisor";
    if (format.parts == 2) text += ":parts2";
    if (format.arranged) text += ":arranged";
    return text;
}

}  // namespace

std::string prewarm_command(const Problem& problem, const Request& request, const std::string& arch) {
    return fmt::format(
        "smlora-tune prewarm --arch {} --shape {},{},{},{},{}{} --dtype {} --adapter-dtype {} --gate-dtype {} "
        "--index-dtype {} --weight-layout {} --x-rows {} --y-rows {}{}{}{}",
        arch, problem.E, problem.K, problem.N, problem.R, problem.top_k, tokens_option(request), name(problem.dtype),
        name(problem.adapter_dtype), name(problem.gate_dtype), name(problem.index_dtype), name(problem.weight_layout),
        name(problem.x_rows), name(problem.y_rows), problem.bias ? " --bias" : "", problem.gates ? " --gates" : "",
        weights_option(problem.weights));
}

}  // namespace smlora::plan
