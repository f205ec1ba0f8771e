#include "smlora_tune/weights_option.hpp"

#include "smlora_tune/exit_code.hpp"

#include <smlora/error.hpp>
#include <smlora/weight.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace smlora::tool {
namespace {

std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> words;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(':', begin), text.size());
        words.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return words;
}

/// Of at least 1, without anything else around it.
std::optional<std::int64_t> number_in(std::string_view text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || number < 1) return std::nullopt;
    return number;
}

std::optional<DType> dtype_in(std::string_view text) {
    try {
        return dtype_from_name(text);
    } catch (const Error&) {
        return std::nullopt;
    }
}

/// What may be said of an encoding, where there is a choice.
struct Choices {
    bool block, scales, outer_scales, global_scale, parts, arranged;
};

Choices choices_of(Encoding encoding) {
    const bool fp8 = encoding == Encoding::fp8, int4 = encoding == Encoding::int4, nvfp4 = encoding == Encoding::nvfp4;
    const bool bitsandbytes = encoding == Encoding::nf4 || encoding == Encoding::fp4;
    const bool mx = encoding == Encoding::mxfp4 || encoding == Encoding::mxfp8;
    return {.block = bitsandbytes || fp8 || int4,
            .scales = mx || fp8 || int4,
            .outer_scales = bitsandbytes,
            .global_scale = nvfp4,
            .parts = fp8 || nvfp4,
            .arranged = encoding != Encoding::plain && encoding != Encoding::int8};
}

/// Those of checkpoints that have the scales in another type than the usual one. int4 is not among them: its scales
/// have the type of the model.
std::vector<DType> other_scales_of(const WeightFormat& format) {
    const Encoding encoding = format.encoding;
    if (encoding == Encoding::mxfp4 || encoding == Encoding::mxfp8) return {DType::uint8};
    if (encoding == Encoding::fp8 && !format.arranged) return {DType::bf16, DType::e8m0};
    return {};
}

/// Takes one word after the other into a format.
class Words {
 public:
    explicit Words(const std::string& text) : text_(text) {}

    [[nodiscard]] models::StoredExperts read() {
        const std::vector<std::string_view> words = split(text_);
        try {
            format_ = usual_format(encoding_from_name(words[0]));
        } catch (const Error& error) {
            throw UsageError(fmt::format("--weights: {}", error.what()));
        }
        open_ = choices_of(format_.encoding);
        for (std::size_t i = 1; i < words.size(); ++i) {
            if (!take(words[i])) fail(words[i]);
        }
        if (format_.arranged) format_ = arranged_format(format_);
        return {.format = format_, .other_scales = open_.scales ? other_scales_of(format_) : std::vector<DType>()};
    }

 private:
    /// False for what makes no sense, or was said before.
    bool take(std::string_view word) {
        if (const auto number = number_in(word)) {
            format_.block = *number;
            return std::exchange(open_.block, false);
        }
        if (word == "double") {  // no type of scales here
            format_.scales = DType::uint8;
            format_.outer_block = 256;  // bitsandbytes has no other
            return std::exchange(open_.outer_scales, false);
        }
        if (const auto scales = dtype_in(word)) {
            format_.scales = *scales;
            return std::exchange(open_.scales, false);
        }
        if (word == "divisor") {
            format_.global_scale = GlobalScale::divisor;
            return std::exchange(open_.global_scale, false);
        }
        if (word == "arranged") {
            format_.arranged = true;
            return std::exchange(open_.arranged, false);
        }
        constexpr std::string_view parts = "parts";
        const auto number = word.starts_with(parts) ? number_in(word.substr(parts.size())) : std::nullopt;
        if (number) format_.parts = *number;
        return number && std::exchange(open_.parts, false);
    }

    [[noreturn]] void fail(std::string_view word) const {
        const Choices choices = choices_of(format_.encoding);
        std::vector<std::string_view> known;
        if (choices.block) known.emplace_back("a block");
        if (choices.scales) known.emplace_back("a type of scales");
        if (choices.outer_scales) known.emplace_back("double");
        if (choices.global_scale) known.emplace_back("divisor");
        if (choices.parts) known.emplace_back("parts2");
        if (choices.arranged) known.emplace_back("arranged");
        throw UsageError(
            fmt::format("--weights: expected {} after {}, got '{}' in '{}'",
                        known.empty() ? "nothing" : fmt::format("{}, each at most once,", fmt::join(known, " or ")),
                        name(format_.encoding), word, text_));
    }

    const std::string& text_;
    WeightFormat format_;
    Choices open_{};  // what may still be said
};

}  // namespace

models::StoredExperts parse_weights(const std::string& text) { return Words(text).read(); }

}  // namespace smlora::tool
