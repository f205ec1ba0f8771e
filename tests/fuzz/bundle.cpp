// Bundles of tunings.
#include "harness.hpp"

#include "tuning/bundle.hpp"
#include "tuning/json_fields.hpp"
#include "util/hash.hpp"

#include <algorithm>

namespace smlora::fuzz {
namespace {

using tuning::Bundle;

void read(const std::string& text) {
    std::string why;
    const std::optional<Bundle> bundle = Bundle::parse(text, why);
    if (!bundle) return require_message(why);
    require(why.empty(), "what is taken has no fault", why);
    const std::string written = tuning::bundle_text(bundle->gpu(), bundle->records());
    const std::optional<Bundle> again = Bundle::parse(written, why);
    require(again.has_value(), "what is written can be read", why);
    require(tuning::bundle_text(again->gpu(), again->records()) == written, "a bundle is written as it was read",
            written);
}

/// With the last line that its content has, which no change hits by chance.
std::string with_end(const std::string& text) {
    const std::size_t end = text.rfind('\n', text.size() < 2 ? 0 : text.size() - 2);
    if (end == std::string::npos) return text;
    const std::string content = text.substr(0, end + 1);
    const tuning::Json line{{"lines", std::count(content.begin(), content.end(), '\n')},
                            {"xxh128", util::xxh128_hex(content)}};
    return content + line.dump() + "\n";
}

}  // namespace
}  // namespace smlora::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    const std::string text(smlora::fuzz::text_of(bytes, size));
    smlora::fuzz::read(text);
    smlora::fuzz::read(smlora::fuzz::with_end(text));
    return 0;
}
