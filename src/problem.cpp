#include <smlora/error.hpp>
#include <smlora/problem.hpp>

#include <fmt/format.h>

#include <utility>

namespace smlora {
namespace {

template <class... Arguments>
[[noreturn]] void fail(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    throw Error(ErrorCode::invalid_argument, fmt::format(format, std::forward<Arguments>(arguments)...));
}

}  // namespace

std::string_view name(RowOrder order) {
    switch (order) {
        case RowOrder::token:
            return "token";
        case RowOrder::scattered:
            return "scattered";
        case RowOrder::grouped:
            return "grouped";
    }
    fail("row order: expected 0 to 2, got {}", static_cast<std::int32_t>(order));
}

std::string_view name(WeightLayout layout) {
    switch (layout) {
        case WeightLayout::ekn:
            return "ekn";
        case WeightLayout::enk:
            return "enk";
    }
    fail("weight layout: expected 0 or 1, got {}", static_cast<std::int32_t>(layout));
}

std::string to_string(const Problem& problem) {
    std::string text =
        fmt::format("E{} K{} N{} R{} k{} {} {} {}->{}", problem.E, problem.K, problem.N, problem.R, problem.top_k,
                    name(problem.dtype), name(problem.weight_layout), name(problem.x_rows), name(problem.y_rows));
    if (problem.R > 0 && problem.adapter_dtype != problem.dtype)
        text += fmt::format(" adapter:{}", name(problem.adapter_dtype));
    if (problem.bias) text += " bias";
    if (problem.gates) text += fmt::format(" gates:{}", name(problem.gate_dtype));
    if (problem.index_dtype != DType::int32) text += fmt::format(" index:{}", name(problem.index_dtype));
    if (problem.weights.encoding != Encoding::plain) text += " weights: " + to_string(problem.weights);
    return text;
}

}  // namespace smlora
