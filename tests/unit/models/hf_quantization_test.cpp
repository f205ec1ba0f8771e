// What the quantization_config of a checkpoint says of its experts.
#include "models/hf_quantization.hpp"

#include "models/hf_config.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

namespace smlora::models {
namespace {

std::string config_of(const std::string& quantization, const std::string& more = "") {
    return R"({"model_type": "qwen3_moe")" + more + R"(, "quantization_config": )" + quantization + "}";
}

StoredExperts stored(const std::string& quantization, const std::string& more = "") {
    return parse_hf_quantization(config_of(quantization, more), "model/config.json");
}

std::string text(const std::string& quantization, const std::string& more = "") {
    return to_string(stored(quantization, more).format);
}

std::string quantization_error(const std::string& quantization) {
    try {
        (void)stored(quantization);
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        return error.what();
    }
    return "no error";
}

TEST(HfQuantization, NoneIsPlain) {
    for (const char* config : {R"({"model_type": "qwen3_moe"})", R"({"quantization_config": null})"}) {
        const StoredExperts experts = parse_hf_quantization(config, "config.json");
        EXPECT_EQ(experts.format, WeightFormat{});
        EXPECT_EQ(experts.source, "");
    }
}

TEST(HfQuantization, BitsandbytesSaysWhichTableAndWhetherScalesAreQuantised) {
    const StoredExperts nf4 = stored(R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false,
        "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": false})");
    EXPECT_EQ(to_string(nf4.format), "nf4 block 64");
    EXPECT_EQ(nf4.source, "quantization_config of bitsandbytes");
    EXPECT_NE(nf4.assumption.find("fused experts stay plain"), std::string::npos);
    EXPECT_EQ(text(R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": true})"),
              "nf4 block 64 double 256");
    // Files of the first versions have no quant_method, and fp4 is what the library takes unless told otherwise.
    EXPECT_EQ(text(R"({"load_in_4bit": true})"), "fp4 block 64");
    EXPECT_EQ(text(R"({"quant_method": "bitsandbytes", "load_in_8bit": true})"), "int8");
    EXPECT_EQ(quantization_error(R"({"quant_method": "bitsandbytes", "load_in_4bit": false})"),
              "model/config.json: quantization_config: load_in_4bit: expected true, or load_in_8bit, got false");
    EXPECT_EQ(
        quantization_error(R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf3"})"),
        "model/config.json: quantization_config: bnb_4bit_quant_type: expected nf4 or fp4, got \"nf3\"");
}

TEST(HfQuantization, Mxfp4OfGptOssHasScalesOfBytes) {
    EXPECT_EQ(text(R"({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
        "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]})"),
              "mxfp4 block 32 uint8");
    EXPECT_EQ(text(R"({"quant_method": "mxfp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"})"),
              "mxfp8 block 32");
}

TEST(HfQuantization, Fp8HasSquaresAndTwoKindsOfScales) {
    EXPECT_EQ(text(R"({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]})"), "fp8 block 128");
    EXPECT_EQ(text(R"({"quant_method": "fp8", "weight_block_size": [64, 64], "scale_fmt": "ue8m0"})"),
              "fp8 block 64 e8m0");
    EXPECT_EQ(text(R"({"quant_method": "fp8", "weight_block_size": [128, 128], "expert_dtype": "fp4"})"),
              "mxfp4 block 32");
    EXPECT_EQ(text(R"({"quant_method": "fp8", "weight_block_size": [128, 128]})", R"(, "expert_dtype": "fp4")"),
              "mxfp4 block 32");
    for (const char* sides : {"\"\"", "[128, 64]", "[32, 1]", "[128]", "128", "[0, 0]", "[\"a\", \"a\"]"}) {
        EXPECT_EQ(quantization_error(std::string(R"({"quant_method": "fp8", "weight_block_size": )") + sides + "}")
                      .rfind("model/config.json: quantization_config: weight_block_size: expected the two sides of a "
                             "square, such as [128, 128], or [1, 32], or null, got ",
                             0),
                  0U)
            << sides;
    }
    EXPECT_EQ(quantization_error(R"({"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "e4m3"})"),
              "model/config.json: quantization_config: scale_fmt: expected float or ue8m0, got \"e4m3\"");
    EXPECT_EQ(quantization_error(R"({"quant_method": "fp8", "weight_block_size": [128, 128], "expert_dtype": "fp6"})"),
              "model/config.json: quantization_config: expert_dtype: expected fp8 or fp4, got \"fp6\"");
}

TEST(HfQuantization, Fp8WithoutABlockIsReadAsTransformersDoes) {
    EXPECT_EQ(text(R"({"quant_method": "fp8", "activation_scheme": "dynamic"})"), "fp8 block 128");
    EXPECT_EQ(text(R"({"quant_method": "fp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"})"), "mxfp8 block 32");
    // One scale a matrix.
    const auto sizes = [](int hidden, int intermediate) {
        return R"(, "num_experts": 8, "num_experts_per_tok": 2, "hidden_size": )" + std::to_string(hidden) +
               R"(, "moe_intermediate_size": )" + std::to_string(intermediate);
    };
    const std::string none = R"({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": null})";
    EXPECT_EQ(text(none, sizes(200, 72)), "fp8 block 200");
    EXPECT_EQ(text(none, sizes(72, 200)), "fp8 block 200");
    EXPECT_NE(quantization_error(none).find("model/config.json: not a Mixture-of-Experts model"), std::string::npos);

    // The scales of gate and up are apart unless the rows of one are the square's side.
    for (const auto& [hidden, intermediate, parts] : {std::tuple{200, 72, 2}, {72, 200, 1}}) {
        const std::string config = config_of(none, sizes(hidden, intermediate));
        ModelShape model = parse_hf_config(config, "config.json");
        model.weights = parse_hf_quantization(config, "config.json").format;
        const std::vector<Projection> both = projections(model, 4);
        EXPECT_EQ(both[0].problem.weights.parts, parts);
        for (const Projection& one : both) {
            EXPECT_NO_THROW(validate(one.problem)) << one.name;
            EXPECT_EQ(one.problem.weights.block, 200);
        }
    }
}

TEST(HfQuantization, WhatAConfigDoesNotSayOfScalesIsLeftOpen) {
    using Types = std::vector<DType>;
    const auto others = [](const std::string& quantization) { return stored(quantization).other_scales; };
    EXPECT_EQ(others(R"({"quant_method": "fp8", "weight_block_size": [128, 128]})"), Types{DType::bf16});
    EXPECT_EQ(others(R"({"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"})"),
              Types{DType::fp32});
    EXPECT_EQ(others(R"({"quant_method": "mxfp8"})"), Types{DType::uint8});
    EXPECT_EQ(others(R"({"quant_method": "fp8", "weight_block_size": [1, 32]})"), Types{DType::uint8});
    EXPECT_EQ(others(R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"a":
        {"targets": ["Linear"], "weights": {"strategy": "block", "block_structure": [128, 128]}}}})"),
              Types{DType::bf16});
    for (const char* known :
         {R"({"quant_method": "mxfp4"})", R"({"quant_method": "fp8", "expert_dtype": "fp4", "scale_fmt": "ue8m0"})",
          R"({"quant_method": "bitsandbytes", "load_in_4bit": true})",
          R"({"quant_method": "modelopt", "quant_algo": "NVFP4"})",
          R"({"quant_method": "torchao", "quant_type": {"default": {"_type": "MXConfig", "_data": {"weight_dtype":
              {"_type": "torch.dtype", "_data": "float8_e4m3fn"}}}}})",
          R"({"quant_method": "fp8", "modules_to_not_convert": ["mlp.experts"]})"}) {
        EXPECT_EQ(others(known), Types()) << known;
    }
}

std::string compressed(const std::string& weights, const std::string& format, const std::string& targets) {
    return R"({"targets": [")" + targets + R"("], "format": ")" + format + R"(", "weights": )" + weights + "}";
}

std::string groups(const std::string& all) {
    return R"({"quant_method": "compressed-tensors", "config_groups": )" + all + R"(, "ignore": ["lm_head"]})";
}

const std::string int4 = R"({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": true})";

TEST(HfQuantization, CompressedTensorsHasASchemeForTheExperts) {
    EXPECT_EQ(text(groups(R"({"group_0": )" + compressed(int4, "pack-quantized", "Linear") + "}")), "int4 block 32");
    EXPECT_EQ(text(groups(R"({"group_0": )" + compressed(int4, "pack-quantized", "Linear") + "}"),
                   R"(, "torch_dtype": "float16")"),
              "int4 block 32 fp16");
    EXPECT_EQ(text(groups(R"({"group_0": )" + compressed("{}", "nvfp4-pack-quantized", "Linear") + "}")),
              "nvfp4 block 16 divisor");
    EXPECT_EQ(text(groups(R"({"group_0": )" + compressed("{}", "mxfp4-pack-quantized", "Linear") + "}")),
              "mxfp4 block 32 uint8");
    EXPECT_EQ(
        text(groups(R"({"group_0": )" +
                    compressed(R"({"strategy": "block", "block_structure": [128, 128]})", "float-quantized", "Linear") +
                    "}")),
        "fp8 block 128");
    // The format of all stands for a group that has none, and the experts' own group goes first.
    EXPECT_EQ(text(R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
        {"group_0": {"targets": ["Linear"], "weights": )" +
                   int4 + "}}}"),
              "int4 block 32");
    EXPECT_EQ(text(groups(R"({"group_0": )" + compressed("{}", "nvfp4-pack-quantized", "Linear") + R"(, "group_1": )" +
                          compressed(int4, "pack-quantized", "re:.*mlp.experts.*") + "}")),
              "int4 block 32");
}

TEST(HfQuantization, CompressedTensorsThatCannotBeDescribedAreRefused) {
    const auto with = [](const std::string& from, const std::string& to) {
        std::string changed = int4;
        changed.replace(changed.find(from), from.size(), to);
        return quantization_error(groups(R"({"group_0": )" + compressed(changed, "pack-quantized", "Linear") + "}"));
    };
    for (const std::string& message :
         {with("\"num_bits\": 4", "\"num_bits\": 8"), with("\"symmetric\": true", "\"symmetric\": false"),
          with("\"group\"", "\"channel\""), with("\"group_size\": 32", "\"group_size\": null")}) {
        EXPECT_NE(message.find("config_groups: weights: expected symmetric groups of 4-bit integers"),
                  std::string::npos)
            << message;
    }
    EXPECT_NE(
        quantization_error(groups(R"({"group_0": )" + compressed("{}", "marlin-24", "Linear") + "}")).find("marlin-24"),
        std::string::npos);
    EXPECT_NE(
        quantization_error(groups(R"({"group_0": )" + compressed(int4, "pack-quantized", "re:.*self_attn.*") + "}"))
            .find("config_groups: expected one whose targets are the experts or Linear"),
        std::string::npos);
}

TEST(HfQuantization, ModeloptIsNvfp4) {
    EXPECT_EQ(text(R"({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head",
        "model.layers.0.self_attn*"]})"),
              "nvfp4 block 16");
    EXPECT_EQ(quantization_error(R"({"quant_method": "modelopt", "quant_algo": "FP8"})"),
              "model/config.json: quantization_config: quant_algo: expected NVFP4, got \"FP8\"");
}

TEST(HfQuantization, TorchaoIsTakenWhereItsSchemeIsClear) {
    const auto scheme = [](const std::string& one) {
        return R"({"quant_method": "torchao", "quant_type": {"default": )" + one + "}}";
    };
    EXPECT_EQ(text(scheme(R"({"_type": "NVFP4WeightOnlyConfig", "_version": 1, "_data": {}})")), "nvfp4 block 16");
    const auto mx = [](const std::string& dtype) {
        return R"({"_type": "MXDynamicActivationMXWeightConfig", "_data": {"weight_dtype":
            {"_type": "torch.dtype", "_data": ")" +
               dtype + "\"}}}";
    };
    EXPECT_EQ(text(scheme(mx("float8_e4m3fn"))), "mxfp8 block 32");
    EXPECT_EQ(text(scheme(mx("float4_e2m1fn_x2"))), "mxfp4 block 32");
    EXPECT_EQ(text(scheme(R"({"_type": "FqnToConfig", "_data": {"fqn_to_config": {"_default": null,
        "re:.*experts.gate_up_proj": )" +
                          mx("float8_e4m3fn") + "}}}")),
              "mxfp8 block 32");
    EXPECT_FALSE(stored(scheme(mx("float8_e4m3fn"))).assumption.empty());
    EXPECT_NE(quantization_error(scheme(R"({"_type": "Int4WeightOnlyConfig", "_data": {}})"))
                  .find("quant_type: expected a scheme of NVFP4 or MX, got {\"_data\":{},\"_type\":\"Int4"),
              std::string::npos);
    EXPECT_NE(quantization_error(scheme(mx("float6_e3m2"))).find("float6_e3m2"), std::string::npos);
}

TEST(HfQuantization, ExpertsThatAreLeftOutArePlain) {
    for (const char* list :
         {R"("modules_to_not_convert": ["lm_head", "mlp.experts"])", R"("ignore": ["re:.*experts.*"])"}) {
        const StoredExperts experts =
            stored(R"({"quant_method": "fp8", "weight_block_size": [128, 128], )" + std::string(list) + "}");
        EXPECT_EQ(experts.format, WeightFormat{}) << list;
        EXPECT_NE(experts.source.find("leaves the experts out"), std::string::npos);
    }
    // Neither shared experts nor those of one layer are all that the layers route to.
    for (const char* list : {R"("modules_to_not_convert": ["re:.*mlp.shared_experts.*"])",
                             R"("ignore": ["model.layers.0.mlp.experts.1.down_proj", "lm_head"])"}) {
        EXPECT_EQ(text(R"({"quant_method": "fp8", "weight_block_size": [128, 128], )" + std::string(list) + "}"),
                  "fp8 block 128")
            << list;
    }
}

TEST(HfQuantization, AnUnknownMethodIsNamed) {
    EXPECT_EQ(quantization_error(R"({"quant_method": "gptq", "bits": 4})"),
              "model/config.json: quantization_config: quant_method: expected bitsandbytes, mxfp4, mxfp8, fp8, "
              "compressed-tensors, modelopt or torchao, whose experts smlora reads, got \"gptq\"");
    EXPECT_NE(quantization_error("{}").find("got null"), std::string::npos) << quantization_error("{}");
    EXPECT_EQ(quantization_error("[4]"), "model/config.json: quantization_config: expected an object, got [4]");
}

TEST(HfQuantization, LiesInTheTextConfigOrAroundIt) {
    for (const char* config :
         {R"({"text_config": {"hidden_size": 64, "quantization_config": {"quant_method": "mxfp8"}}})",
          R"({"text_config": {"hidden_size": 64}, "quantization_config": {"quant_method": "mxfp8"}})"}) {
        EXPECT_EQ(to_string(parse_hf_quantization(config, "config.json").format), "mxfp8 block 32");
    }
}

TEST(HfQuantization, IsReadFromAFileOrTheFolderThatHoldsIt) {
    const auto folder = std::filesystem::temp_directory_path() / ("smlora_hf_quant_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << config_of(R"({"quant_method": "mxfp8"})");
    EXPECT_EQ(to_string(read_hf_quantization(folder).format), "mxfp8 block 32");
    EXPECT_EQ(to_string(read_hf_quantization(folder / "config.json").format), "mxfp8 block 32");
    std::filesystem::remove_all(folder);
    EXPECT_THROW((void)read_hf_quantization(folder / "config.json"), Error);
}

}  // namespace
}  // namespace smlora::models
