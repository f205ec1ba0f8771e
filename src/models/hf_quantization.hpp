// Reading how a Hugging Face checkpoint stores its experts.
#pragma once

#include <smlora/encoding.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::models {

/// The weights of the routed experts, and what else a user should know of them.
struct StoredExperts {
    WeightFormat format = {};              ///< parts is 1: the projection decides
    std::vector<DType> other_scales = {};  ///< what the scales may be instead of format.scales, as nothing says which
    std::string source = {};               ///< "quantization_config of mxfp4"; empty if there is none
    std::string assumption = {};           ///< what the config leaves open, as a sentence; empty if nothing
};

/// What the `quantization_config` of a config.json says of the routed experts:
///   bitsandbytes         load_in_4bit: nf4 or fp4 in blocks of 64, with double quantisation or not; load_in_8bit: int8
///   mxfp4, mxfp8         gpt-oss's scales are uint8, those of mxfp8 e8m0 or uint8
///   fp8                  squares of weight_block_size, where null is a square that holds a whole matrix; [1, 32] is
///                        mxfp8; mxfp4 with expert_dtype fp4. Scales: fp32 or bf16; with scale_fmt ue8m0 e8m0 or fp32
///   compressed-tensors   the group of the experts, else of Linear: int4, nvfp4, mxfp4, fp8 in blocks
///   modelopt             nvfp4
///   torchao              nvfp4, mxfp4, mxfp8
/// Plain without a `quantization_config`, or if it leaves the experts out. Throws Error{invalid_argument} that names
/// `origin`, the key, its value and what was expected for everything else.
[[nodiscard]] StoredExperts parse_hf_quantization(std::string_view json_text, const std::string& origin);

/// The same from a file, or from the config.json in a folder. Throws Error{io} when it cannot be read.
[[nodiscard]] StoredExperts read_hf_quantization(const std::filesystem::path& path);

}  // namespace smlora::models
