// A model's config.json.
#include "harness.hpp"

#include "models/hf_config.hpp"
#include "models/hf_quantization.hpp"

#include <smlora/error.hpp>

namespace smlora::fuzz {
namespace {

template <class Read>
void expect_result_or_error(const Read& read) {
    try {
        read();
    } catch (const Error& error) {
        require(error.code() == ErrorCode::invalid_argument, "a config that makes no sense is a wrong argument");
        require_message(error.what());
    }
}

}  // namespace
}  // namespace smlora::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    using namespace smlora;
    const std::string_view text = fuzz::text_of(bytes, size);
    fuzz::expect_result_or_error([&] {
        const models::ModelShape model = models::parse_hf_config(text, "config.json");
        fuzz::require_message(model.name);
        fuzz::require(model.num_experts >= 1 && model.top_k >= 1 && model.top_k <= model.num_experts,
                      "a token has at most as many experts as there are");
    });
    fuzz::expect_result_or_error([&] {
        const std::string source = models::parse_hf_quantization(text, "config.json").source;
        if (!source.empty()) fuzz::require_message(source);
    });
    return 0;
}
