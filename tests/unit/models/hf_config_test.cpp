// config.json files of Hugging Face models: the keys of each family, and what is wrong with a bad one.
#include "models/hf_config.hpp"
#include "models/model_table.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace smlora::models {
namespace {

std::string error_of(const std::string& text) {
    try {
        (void)parse_hf_config(text, "model/config.json");
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        return error.what();
    }
    return "no error";
}

/// Everything but the name, which a config.json does not have.
ModelShape named(ModelShape shape, const std::string& name) {
    shape.name = name;
    return shape;
}

TEST(HfConfig, QwenNamesItsExpertsNumExperts) {
    const auto shape = parse_hf_config(R"({"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "torch_dtype": "bfloat16"})",
                                       "config.json");
    EXPECT_EQ(shape, named(model_by_name("qwen3-30b-a3b"), "qwen3_moe"));
}

TEST(HfConfig, DeepSeekNamesItsExpertsRoutedAndItsDenseLayersAreWider) {
    const auto shape = parse_hf_config(R"({"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8})",
                                       "config.json");
    EXPECT_EQ(shape, named(model_by_name("deepseek-v3"), "deepseek_v3"));
}

TEST(HfConfig, MixtralNamesItsExpertsLocalAndHasOneIntermediateSize) {
    const auto shape = parse_hf_config(R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_local_experts": 8, "num_experts_per_tok": 2, "torch_dtype": "bfloat16"})",
                                       "config.json");
    EXPECT_EQ(shape, named(model_by_name("mixtral-8x7b"), "mixtral"));
}

TEST(HfConfig, GptOssHasBiasesAndStoresInputsFirst) {
    const auto shape = parse_hf_config(R"({"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
        "num_local_experts": 32, "num_experts_per_tok": 4, "quantization_config": {"quant_method": "mxfp4"}})",
                                       "config.json");
    EXPECT_EQ(shape, named(model_by_name("gpt-oss-20b"), "gpt_oss"));
}

TEST(HfConfig, LooksIntoTheTextConfigOfAModelThatAlsoSees) {
    const auto shape = parse_hf_config(R"({"model_type": "qwen3_5_moe", "dtype": "float16",
        "vision_config": {"hidden_size": 1152}, "text_config": {"model_type": "qwen3_5_moe_text", "hidden_size": 2048,
        "moe_intermediate_size": 512, "num_experts": 256, "num_experts_per_tok": 8}})",
                                       "config.json");
    ModelShape expected = named(model_by_name("qwen35"), "qwen3_5_moe_text");
    expected.dtype = DType::fp16;
    EXPECT_EQ(shape, expected);
}

TEST(HfConfig, TheActivationIsThatOfHiddenAct) {
    const auto activation = [](const std::string& name) {
        return parse_hf_config(
                   R"({"hidden_size": 64, "intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
            "hidden_act": ")" +
                       name + "\"}",
                   "config.json")
            .activation;
    };
    EXPECT_EQ(activation("silu"), Activation::swiglu);
    EXPECT_EQ(activation("gelu"), Activation::geglu);
    EXPECT_EQ(activation("gelu_pytorch_tanh"), Activation::geglu_tanh);
    EXPECT_EQ(activation("relu"), Activation::reglu);
}

TEST(HfConfig, TheTypeOfGatesIsThatOfTheFamily) {
    const auto gates = [](const std::string& model_type) {
        return parse_hf_config(R"({"hidden_size": 64, "intermediate_size": 32, "num_experts": 4,
            "num_experts_per_tok": 2, "model_type": ")" +
                                   model_type + "\"}",
                               "config.json")
            .gates;
    };
    EXPECT_EQ(gates("qwen3_moe"), GateType::model);
    EXPECT_EQ(gates("qwen3_5_moe"), GateType::model);
    EXPECT_EQ(gates("qwen3_5_moe_text"), GateType::model);
    EXPECT_EQ(gates("mixtral"), GateType::fp32);
    EXPECT_EQ(gates("none_that_is_known"), GateType::either);
}

TEST(HfConfig, AnActivationThatSmloraHasNotIsTheModelsOwnCode) {
    const auto activation = [](const std::string& more) {
        return parse_hf_config(
                   R"({"hidden_size": 64, "intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, )" +
                       more + "}",
                   "config.json")
            .activation;
    };
    EXPECT_EQ(activation(R"("hidden_act": "swigluoai")"), std::nullopt);
    EXPECT_EQ(activation(R"("hidden_act": "relu2")"), std::nullopt);
    EXPECT_EQ(activation(R"("hidden_act": "silu", "swiglu_limit": 7.0)"), std::nullopt);
    EXPECT_EQ(activation(R"("hidden_act": "silu", "swiglu_limit": null)"), Activation::swiglu);
    EXPECT_EQ(activation(R"("model_type": "deepseek_v4", "hidden_act": "silu")"), std::nullopt);
    EXPECT_EQ(activation(R"("hidden_activation": "gelu_pytorch_tanh")"), Activation::geglu_tanh);
}

TEST(HfConfig, FamiliesThatMultiplyOrActivateInTheirOwnWay) {
    const auto shape = [](const std::string& text) { return parse_hf_config(text, "config.json"); };
    const auto aria = shape(R"({"model_type": "aria", "text_config": {"model_type": "aria_text", "hidden_size": 2560,
        "intermediate_size": 1664, "moe_num_experts": 64, "moe_topk": 6, "hidden_act": "silu"}})");
    EXPECT_EQ(aria, (ModelShape{"aria_text",
                                64,
                                2560,
                                1664,
                                6,
                                WeightLayout::ekn,
                                false,
                                DType::bf16,
                                Activation::swiglu,
                                GateLayout::halves,
                                {},
                                GateType::model}));
    const auto minimax = shape(R"({"model_type": "minimax_m3_vl", "text_config": {"hidden_size": 6144,
        "intermediate_size": 3072, "dense_intermediate_size": 12288, "num_local_experts": 128, "num_experts_per_tok": 4,
        "hidden_act": "swigluoai", "swiglu_alpha": 1.702, "swiglu_limit": 7.0}})");
    EXPECT_EQ(minimax, (ModelShape{"minimax_m3_vl",
                                   128,
                                   6144,
                                   3072,
                                   4,
                                   WeightLayout::enk,
                                   false,
                                   DType::bf16,
                                   Activation::swiglu_clamped,
                                   GateLayout::halves,
                                   {},
                                   GateType::fp32}));
    const auto filter = shape(R"({"model_type": "openai_privacy_filter", "hidden_size": 640, "intermediate_size": 640,
        "num_local_experts": 128, "num_experts_per_tok": 4, "hidden_act": "silu"})");
    EXPECT_EQ(filter, (ModelShape{"openai_privacy_filter", 128, 640, 640, 4, WeightLayout::ekn, true, DType::bf16,
                                  Activation::swiglu_clamped}));
    const auto nemotron = shape(R"({"model_type": "nemotron_h", "hidden_size": 4096, "n_routed_experts": 512,
        "num_experts_per_tok": 22, "moe_intermediate_size": 2688, "moe_latent_size": 1024, "mlp_hidden_act": "relu2"})");
    EXPECT_EQ(nemotron.hidden_size, 1024);
    EXPECT_EQ(nemotron.activation, std::nullopt);
    EXPECT_FALSE(nemotron.gated);
    const auto projected = projections(nemotron, 16);
    EXPECT_EQ(projected[0].name, "up");
    EXPECT_EQ(projected[0].problem.K, 1024);
    EXPECT_EQ(projected[0].problem.N, 2688);
    EXPECT_EQ(projected[1].problem.K, 2688);
}

TEST(HfConfig, KnowsEveryNameOfTheNumberOfExpertsOfAToken) {
    for (const char* key :
         {"num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k"}) {
        EXPECT_EQ(parse_hf_config(R"({"hidden_size": 64, "intermediate_size": 32, "moe_num_experts": 4, ")" +
                                      std::string(key) + "\": 3}",
                                  "config.json")
                      .top_k,
                  3)
            << key;
    }
}

TEST(HfConfig, LooksIntoEveryPartThatIsAboutText) {
    const std::string sizes = R"({"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128,
        "num_experts_per_tok": 8})";
    for (const std::string& outer :
         {R"({"text_config": )" + sizes + "}", R"({"language_config": )" + sizes + "}",
          R"({"llm_config": )" + sizes + "}", R"({"thinker_config": {"text_config": )" + sizes + "}}"}) {
        EXPECT_EQ(parse_hf_config(outer, "config.json").num_experts, 128) << outer;
    }
}

TEST(HfConfig, AListOfLayersHasOneNumber) {
    const auto list = [](const std::string& sizes) {
        return R"({"model_type": "hunyuan_v1_moe", "hidden_size": 4096, "num_experts": 64, "moe_topk": [8, 8],
            "moe_intermediate_size": )" +
               sizes + "}";
    };
    EXPECT_EQ(parse_hf_config(list("[3072, 3072]"), "config.json").intermediate_size, 3072);
    EXPECT_EQ(error_of(list("[1536, 512]")),
              "model/config.json: moe_intermediate_size: expected the same number for all experts, got [1536,512]");
    EXPECT_EQ(error_of(list("[]")), "model/config.json: moe_intermediate_size: expected a whole number, got []");
}

TEST(HfConfig, ReadsTheWordsThatPythonWritesForNumbers) {
    const auto shape = parse_hf_config(R"({"hidden_size": 64, "intermediate_size": 32, "num_experts": 4,
        "num_experts_per_tok": 2, "time_step_limit": [0.0, Infinity, -Infinity], "other": NaN, "text": "a \"NaN\" or so"})",
                                       "config.json");
    EXPECT_EQ(shape.top_k, 2);
    EXPECT_EQ(error_of(R"({"num_experts": NaN})"),
              R"(model/config.json: num_experts: expected a whole number, got "NaN")");
    EXPECT_EQ(error_of(R"({"num_experts": Nan})").rfind("model/config.json: expected JSON: parse error", 0), 0U);
}

TEST(HfConfig, TheTypeIsOneOfThoseThatTrain) {
    const auto text = [](const std::string& more) {
        return R"({"hidden_size": 64, "intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, )" + more +
               "}";
    };
    EXPECT_EQ(parse_hf_config(text(R"("torch_dtype": "torch.float16")"), "config.json").dtype, DType::fp16);
    EXPECT_EQ(parse_hf_config(text(R"("dtype": null)"), "config.json").dtype, DType::bf16);
    EXPECT_EQ(parse_hf_config(text(R"("dtype": "float8_e4m3fn", "quantization_config": {})"), "config.json").dtype,
              DType::bf16);
    EXPECT_EQ(error_of(text(R"("dtype": "float8_e4m3fn", "quantization_config": null)")),
              "model/config.json: dtype: expected bfloat16, float16 or float32, got \"float8_e4m3fn\"");
}

TEST(HfConfig, ExpertsThatSmloraDoesNotComputeAreRefused) {
    EXPECT_EQ(error_of(R"({"model_type": "llama4", "num_local_experts": 16})"),
              "model/config.json: model_type: llama4 computes its experts by its own code, for which one cannot choose "
              "smlora; give its projections one by one, with --shape");
    EXPECT_EQ(error_of(R"({"text_config": {"model_type": "muse_spark_text"}})"),
              "model/config.json: model_type: muse_spark_text has a norm after each expert; give its projections one "
              "by one, with --shape");
}

TEST(HfConfig, NullCountsAsAbsent) {
    const auto shape = parse_hf_config(R"({"hidden_size": 64, "moe_intermediate_size": null, "intermediate_size": 32,
        "num_experts": null, "num_local_experts": 4, "num_experts_per_tok": 2})",
                                       "config.json");
    EXPECT_EQ(shape.num_experts, 4);
    EXPECT_EQ(shape.intermediate_size, 32);
}

TEST(HfConfig, ErrorsNameTheFileAndTheKey) {
    EXPECT_EQ(error_of(R"({"hidden_size": 64, "intermediate_size": 32, "num_experts_per_tok": 2})"),
              "model/config.json: not a Mixture-of-Experts model: expected a number of experts as num_experts, "
              "n_routed_experts, num_local_experts or moe_num_experts, found none");
    EXPECT_EQ(error_of(R"({"num_experts": 4, "hidden_size": "64", "intermediate_size": 32, "num_experts_per_tok": 2})"),
              "model/config.json: hidden_size: expected a whole number, got \"64\"");
    EXPECT_EQ(error_of(R"({"num_experts": 0, "hidden_size": 64, "intermediate_size": 32, "num_experts_per_tok": 2})"),
              "model/config.json: num_experts: expected 1 to 2147483648, got 0");
    EXPECT_EQ(error_of(R"({"num_experts": 4, "hidden_size": 18446744073709551615})"),
              "model/config.json: hidden_size: expected 1 to 2147483648, got 18446744073709551615");
    EXPECT_EQ(error_of(R"({"num_experts": 4, "hidden_size": 64.5, "intermediate_size": 32, "num_experts_per_tok": 2})"),
              "model/config.json: hidden_size: expected a whole number, got 64.5");
    EXPECT_EQ(
        error_of(R"({"n_routed_experts": 4, "hidden_size": 64, "intermediate_size": 32, "num_experts_per_tok": 5})"),
        "model/config.json: num_experts_per_tok: expected at most 4, which n_routed_experts is, got 5");
    EXPECT_EQ(error_of("[1, 2]"), "model/config.json: expected a JSON object, got array");
    EXPECT_EQ(error_of("{\"hidden_size\": ").rfind("model/config.json: expected JSON: parse error at line 1", 0), 0U)
        << error_of("{\"hidden_size\": ");
}

TEST(HfConfig, IsReadWithoutTrustInWhoWroteIt) {
    const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
    EXPECT_EQ(error_of("{\"num_experts\": " + deep + "}"),
              "model/config.json: expected JSON of at most 64 MiB and 1048576 values, nested at most 64 deep");
    EXPECT_EQ(error_of(R"({"num_experts": 1e999})"),
              "model/config.json: expected JSON: number overflow parsing '1e999'");
    EXPECT_EQ(error_of("{\"num_experts\": \"" + std::string(10'000'000, 'x') + "\"}"),
              "model/config.json: num_experts: expected a whole number, got \"" + std::string(79, 'x') + "...");
    EXPECT_EQ(error_of("{\"num_experts\": \"\xff\\u001b[31m\"}"),
              "model/config.json: expected JSON: parse error at line 1, column 18: syntax error while parsing value - "
              "invalid string: ill-formed UTF-8 byte; last read: '\"\\xff'");
    EXPECT_EQ(error_of(R"({"num_experts": "\u001b[31m\u00e9"})"),
              R"(model/config.json: num_experts: expected a whole number, got "\u001b[31m\u00e9")");
    EXPECT_EQ(error_of(R"({"model_type": "\u001b[31mred", "num_experts": 4})"),
              R"(model/config.json: model_type: expected a name, got "\u001b[31mred")");
    EXPECT_EQ(error_of(R"({"num_experts": 4, "hidden_size": [[[[[[1]]]]]]})"),
              "model/config.json: hidden_size: expected a whole number, got [[[[[[1]]]]]]");
}

TEST(HfConfig, HasAnEnd) {
    try {
        (void)read_hf_config("/dev/zero");
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::io);
        EXPECT_STREQ(error.what(), "/dev/zero: expected at most 67108864 bytes, got more");
    }
}

TEST(HfConfig, ReadsAFileOrTheFolderThatHoldsIt) {
    const auto folder = std::filesystem::temp_directory_path() / ("smlora_hf_config_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json")
        << R"({"hidden_size": 64, "intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2})";
    EXPECT_EQ(read_hf_config(folder).hidden_size, 64);
    EXPECT_EQ(read_hf_config(folder / "config.json"), read_hf_config(folder));
    std::filesystem::remove_all(folder);
    try {
        (void)read_hf_config(folder / "config.json");
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::io);
        EXPECT_NE(std::string(error.what()).find(folder.string()), std::string::npos) << error.what();
    }
}

}  // namespace
}  // namespace smlora::models
