#include "jit/kernel_spec.hpp"

#include <fmt/format.h>

#include <limits>

namespace smlora::jit {
namespace {

std::string literal(std::int64_t value) {
    // The most negative value has no literal: a minus sign is applied to a number that is one too large.
    if (value == std::numeric_limits<std::int64_t>::min()) {
        return "-9223372036854775807LL - 1";
    }
    return fmt::format("{}LL", value);
}

std::string declaration(const Constant& constant) {
    if (constant.kind == Constant::Kind::type) {
        return fmt::format("using {} = {};", constant.name, constant.type);
    }
    using Int = std::numeric_limits<std::int32_t>;
    if (constant.integer >= Int::min() && constant.integer <= Int::max()) {
        return fmt::format("static constexpr int {} = {};", constant.name, constant.integer);
    }
    return fmt::format("static constexpr long long {} = {};", constant.name, literal(constant.integer));
}

std::string_view without_namespace(std::string_view type) {
    constexpr std::string_view prefix = "smlora::";
    return type.starts_with(prefix) ? type.substr(prefix.size()) : type;
}

}  // namespace

std::string symbol(const KernelSpec& spec) { return "smlora_" + spec.family; }

std::string readable(const KernelSpec& spec) {
    std::string line = spec.family;
    for (const Constant& constant : spec.constants) {
        if (constant.kind == Constant::Kind::type) {
            line += fmt::format(" {}={}", constant.name, without_namespace(constant.type));
        } else {
            line += fmt::format(" {}={}", constant.name, constant.integer);
        }
    }
    return line;
}

std::string source(const KernelSpec& spec) {
    std::string text = fmt::format("#include \"{}.cuh\"\n\nstruct Constants {{\n", spec.family);
    for (const Constant& constant : spec.constants) {
        text += "    " + declaration(constant) + "\n";
    }
    text += fmt::format(
        "}};\n\n"
        "extern \"C\" __global__ void {}__launch_bounds__({}, {}) {}(const __grid_constant__ smlora::{}::Args args) "
        "{{\n"
        "    smlora::{}::run<Constants>(args);\n"
        "}}\n",
        spec.cluster > 1 ? fmt::format("__cluster_dims__({}, 1, 1) ", spec.cluster) : "", spec.threads, spec.min_blocks,
        symbol(spec), spec.family, spec.family);
    return text;
}

}  // namespace smlora::jit
