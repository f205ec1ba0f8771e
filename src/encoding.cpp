#include <smlora/encoding.hpp>
#include <smlora/error.hpp>
#include <smlora/weight.hpp>

#include <fmt/format.h>

#include <array>

namespace smlora {
namespace {

// In the order of the enumeration.
constexpr std::array<std::string_view, 9> names{"plain", "nf4",   "fp4",   "int8", "mxfp4",
                                                "fp8",   "mxfp8", "nvfp4", "int4"};

}  // namespace

std::string_view name(Encoding encoding) {
    const auto index = static_cast<std::size_t>(encoding);
    if (index >= names.size()) {
        throw Error(ErrorCode::invalid_argument, fmt::format("encoding: expected a value from 0 to {}, got {}",
                                                             names.size() - 1, static_cast<std::int32_t>(encoding)));
    }
    return names[index];
}

Encoding encoding_from_name(std::string_view text) {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == text) return static_cast<Encoding>(i);
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("encoding: expected one of {}, got \"{}\"", fmt::join(names, ", "), text));
}

WeightFormat usual_format(Encoding encoding) {
    switch (encoding) {
        case Encoding::plain:
            return {};
        case Encoding::nf4:
        case Encoding::fp4:
            return {.encoding = encoding, .block = 64};
        case Encoding::int8:
            return {.encoding = encoding};
        case Encoding::mxfp4:
        case Encoding::mxfp8:
            return {.encoding = encoding, .scales = DType::e8m0, .block = 32};
        case Encoding::fp8:
            return {.encoding = encoding, .block = 128};
        case Encoding::nvfp4:
            return {.encoding = encoding, .scales = DType::e4m3, .block = 16};
        case Encoding::int4:
            return {.encoding = encoding, .scales = DType::bf16, .block = 32};
    }
    (void)name(encoding);  // says what is wrong
    return {};
}

DType usual_scales(const WeightFormat& format) {
    const WeightFormat usual = usual_format(format.encoding);
    return (format.arranged ? arranged_format(usual) : usual).scales;
}

std::string to_string(const WeightFormat& format) {
    std::string text(name(format.encoding));
    if (format.encoding == Encoding::plain) return text;
    if (format.encoding != Encoding::int8) text += fmt::format(" block {}", format.block);
    if (format.outer_block != 0) {
        text += fmt::format(" double {}", format.outer_block);
    } else if (format.scales != usual_scales(format)) {
        text += fmt::format(" {}", name(format.scales));
    }
    if (format.parts != 1) text += fmt::format(" parts {}", format.parts);
    if (format.global_scale == GlobalScale::divisor) text += " divisor";
    if (format.arranged) text += " arranged";
    return text;
}

}  // namespace smlora
