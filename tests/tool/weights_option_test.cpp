// The words of --weights.
#include "smlora_tune/weights_option.hpp"

#include "smlora_tune/exit_code.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace smlora::tool {
namespace {

std::string error_of(const std::string& text) {
    try {
        (void)parse_weights(text);
    } catch (const UsageError& error) {
        return error.what();
    }
    return "no error";
}

TEST(Weights, AnEncodingAloneIsTheUsualOne) {
    for (const Encoding encoding : {Encoding::plain, Encoding::nf4, Encoding::fp4, Encoding::int8, Encoding::mxfp4,
                                    Encoding::fp8, Encoding::mxfp8, Encoding::nvfp4, Encoding::int4}) {
        EXPECT_EQ(parse_weights(std::string(name(encoding))).format, usual_format(encoding)) << name(encoding);
    }
}

TEST(Weights, WhatFollowsChangesIt) {
    const std::map<std::string, std::string> texts{
        {"nf4:128", "nf4 block 128"},
        {"nf4:double", "nf4 block 64 double 256"},
        {"fp4:64:double", "fp4 block 64 double 256"},
        {"fp4:double:32", "fp4 block 32 double 256"},
        {"mxfp4:uint8", "mxfp4 block 32 uint8"},
        {"mxfp4:arranged", "mxfp4 block 32 arranged"},
        {"int4:arranged:128", "int4 block 128 arranged"},
        {"mxfp4:arranged:uint8", "mxfp4 block 32 uint8 arranged"},
        {"nvfp4:arranged:parts2", "nvfp4 block 16 parts 2 arranged"},
        {"nf4:double:arranged", "nf4 block 64 arranged"},
        {"fp8:bf16:arranged", "fp8 block 128 arranged"},
        {"mxfp8:e8m0", "mxfp8 block 32"},
        {"fp8:64:bf16", "fp8 block 64 bf16"},
        {"fp8:parts2:e8m0", "fp8 block 128 e8m0 parts 2"},
        {"nvfp4:parts2:divisor", "nvfp4 block 16 parts 2 divisor"},
        {"int4:128:fp16", "int4 block 128 fp16"},
    };
    for (const auto& [text, format] : texts) EXPECT_EQ(to_string(parse_weights(text).format), format) << text;
}

TEST(Weights, WithoutATypeOfScalesThereAreThoseOfOtherCheckpoints) {
    using Types = std::vector<DType>;
    for (const char* text : {"mxfp4", "mxfp8"})
        EXPECT_EQ(parse_weights(text).other_scales, Types{DType::uint8}) << text;
    for (const char* text : {"fp8", "fp8:64:parts2"}) {
        EXPECT_EQ(parse_weights(text).other_scales, (Types{DType::bf16, DType::e8m0})) << text;
    }
    for (const char* text : {"mxfp4:uint8", "mxfp4:e8m0", "mxfp8:e8m0", "fp8:fp32", "fp8:64:bf16", "plain", "nf4",
                             "fp4", "nf4:double", "int8", "nvfp4", "int4", "int4:64", "fp8:arranged"}) {
        EXPECT_EQ(parse_weights(text).other_scales, Types()) << text;
    }
}

TEST(Weights, NonsenseIsRefusedWithWhatWasExpected) {
    EXPECT_EQ(
        error_of("nf5"),
        "--weights: encoding: expected one of plain, nf4, fp4, int8, mxfp4, fp8, mxfp8, nvfp4, int4, got \"nf5\"");
    EXPECT_EQ(
        error_of("nf4:64:128"),
        "--weights: expected a block or double or arranged, each at most once, after nf4, got '128' in 'nf4:64:128'");
    EXPECT_EQ(error_of("fp8:double"),
              "--weights: expected a block or a type of scales or parts2 or arranged, each at most once, after fp8, "
              "got 'double' in "
              "'fp8:double'");
    EXPECT_EQ(error_of("plain:64"), "--weights: expected nothing after plain, got '64' in 'plain:64'");
    for (const char* text : {"",
                             ":64",
                             "nf4:",
                             "nf4::64",
                             "nf4:0",
                             "nf4:-64",
                             "nf4:64 ",
                             "nf4:64x",
                             "nf4:fp32",
                             "nf4:parts2",
                             "int8:64",
                             "int8:fp32",
                             "nvfp4:16",
                             "nvfp4:e4m3",
                             "mxfp4:32",
                             "mxfp4:divisor",
                             "mxfp4:arranged:arranged",
                             "int8:arranged",
                             "fp8:parts",
                             "fp8:parts0",
                             "fp8:parts-1",
                             "fp8:bf16:fp32",
                             "int4:double",
                             "int4:parts2",
                             "nf4:99999999999999999999",
                             "NF4"}) {
        EXPECT_EQ(error_of(text).rfind("--weights: ", 0), 0U) << text << ": " << error_of(text);
    }
}

}  // namespace
}  // namespace smlora::tool
