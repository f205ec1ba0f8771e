// Engines, buffers, problems and names through the C functions, on the CPU backend.
#include <smlora/smlora.h>
#include <smlora/smlora.hpp>

#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Takes over a string of the library.
std::string take(char* text) {
    const std::string copy = text;
    smlora_free_string(text);
    return copy;
}

class CApi : public ::testing::Test {
 protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "smlora-capi-XXXXXX").string();
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        root_ = pattern;
        smlora_engine_options options;
        smlora_engine_options_init(&options, sizeof options);
        const char* none[] = {nullptr};
        options.backend = SMLORA_BACKEND_CPU;
        options.cache_root = root_.c_str();
        options.cache_layers = none;
        options.threads = 2;
        ASSERT_EQ(smlora_engine_create(&options, &engine_), SMLORA_OK) << smlora_last_error();
    }

    void TearDown() override {
        smlora_engine_destroy(engine_);
        fs::remove_all(root_);
    }

    fs::path root_;
    smlora_engine* engine_ = nullptr;
};

TEST(Version, IsThatOfTheHeader) { EXPECT_STREQ(smlora_version(), SMLORA_VERSION); }

TEST(Dtype, NamesAndSizesAgreeWithCpp) {
    for (smlora_dtype dtype = SMLORA_BF16; dtype <= SMLORA_E8M0; ++dtype) {
        const auto cpp = static_cast<smlora::DType>(dtype);
        EXPECT_EQ(smlora_dtype_name(dtype), smlora::name(cpp));
        EXPECT_EQ(smlora_dtype_size(dtype), smlora::size_of(cpp));
        smlora_dtype back = -1;
        EXPECT_EQ(smlora_dtype_from_name(smlora_dtype_name(dtype), &back), SMLORA_OK);
        EXPECT_EQ(back, dtype);
    }
}

TEST(Dtype, WhatIsNoneHasNoNameAndNoSize) {
    for (smlora_dtype dtype : {-1, 10}) {
        EXPECT_EQ(smlora_dtype_name(dtype), nullptr);
        EXPECT_EQ(smlora_dtype_size(dtype), 0u);
    }
    smlora_dtype untouched = 77;
    EXPECT_EQ(smlora_dtype_from_name("fp7", &untouched), SMLORA_INVALID_ARGUMENT);
    EXPECT_NE(std::string(smlora_last_error()).find("fp7"), std::string::npos) << smlora_last_error();
    EXPECT_EQ(smlora_dtype_from_name(nullptr, &untouched), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(untouched, 77);
    EXPECT_EQ(smlora_dtype_from_name("fp32", nullptr), SMLORA_INVALID_ARGUMENT);
}

TEST(Names, OfRowOrdersAndWeightLayouts) {
    EXPECT_STREQ(smlora_row_order_name(SMLORA_ROWS_TOKEN), "token");
    EXPECT_STREQ(smlora_row_order_name(SMLORA_ROWS_SCATTERED), "scattered");
    EXPECT_STREQ(smlora_row_order_name(SMLORA_ROWS_GROUPED), "grouped");
    EXPECT_EQ(smlora_row_order_name(3), nullptr);
    EXPECT_STREQ(smlora_weight_layout_name(SMLORA_WEIGHT_EKN), "ekn");
    EXPECT_STREQ(smlora_weight_layout_name(SMLORA_WEIGHT_ENK), "enk");
    EXPECT_EQ(smlora_weight_layout_name(2), nullptr);
}

TEST(TensorInit, WithoutStridesIsRowMajor) {
    const std::int64_t shape[] = {2, 3, 5};
    smlora_tensor tensor;
    ASSERT_EQ(smlora_tensor_init(&tensor, &tensor, SMLORA_FP32, 3, shape, nullptr), SMLORA_OK);
    EXPECT_EQ(tensor.data, &tensor);
    EXPECT_EQ(tensor.dtype, SMLORA_FP32);
    EXPECT_EQ(tensor.ndim, 3);
    EXPECT_EQ(tensor.strides[0], 15);
    EXPECT_EQ(tensor.strides[1], 5);
    EXPECT_EQ(tensor.strides[2], 1);
}

TEST(TensorInit, TakesStrides) {
    const std::int64_t shape[] = {2, 3}, strides[] = {1, 8};
    smlora_tensor tensor;
    ASSERT_EQ(smlora_tensor_init(&tensor, nullptr, SMLORA_BF16, 2, shape, strides), SMLORA_OK);
    EXPECT_EQ(tensor.shape[1], 3);
    EXPECT_EQ(tensor.strides[0], 1);
    EXPECT_EQ(tensor.strides[1], 8);
}

TEST(TensorInit, RefusesWhatIsNoView) {
    const std::int64_t shape[] = {2, 3, 4, 5, 6};
    smlora_tensor tensor;
    EXPECT_EQ(smlora_tensor_init(&tensor, nullptr, SMLORA_FP32, 5, shape, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "tensor.ndim: expected 0 to 4, got 5");
    EXPECT_EQ(smlora_tensor_init(&tensor, nullptr, SMLORA_FP32, 2, nullptr, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "shape: expected a pointer, got null");
    EXPECT_EQ(smlora_tensor_init(nullptr, nullptr, SMLORA_FP32, 2, shape, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "tensor: expected a pointer, got null");
}

TEST(ProblemFunctions, ValidateNamesTheField) {
    smlora_problem problem;
    smlora_problem_init(&problem, sizeof problem);
    problem.E = 4;
    problem.K = 8;
    problem.N = 8;
    EXPECT_EQ(smlora_validate(&problem), SMLORA_OK) << smlora_last_error();
    problem.R = 257;
    EXPECT_EQ(smlora_validate(&problem), SMLORA_INVALID_ARGUMENT);
    EXPECT_NE(std::string(smlora_last_error()).find("257"), std::string::npos) << smlora_last_error();
    EXPECT_EQ(smlora_validate(nullptr), SMLORA_INVALID_ARGUMENT);
}

TEST(ProblemFunctions, ToStringIsThatOfCpp) {
    smlora_problem problem;
    smlora_problem_init(&problem, sizeof problem);
    problem.E = 128;
    problem.K = 2048;
    problem.N = 1536;
    problem.R = 16;
    problem.top_k = 8;
    smlora::Problem cpp;
    cpp.E = 128;
    cpp.K = 2048;
    cpp.N = 1536;
    cpp.R = 16;
    cpp.top_k = 8;
    char* text = nullptr;
    ASSERT_EQ(smlora_problem_to_string(&problem, &text), SMLORA_OK);
    EXPECT_EQ(take(text), smlora::to_string(cpp));
}

TEST(ProblemFunctions, PaddedRankIsAMultipleOfEight) {
    EXPECT_EQ(smlora_padded_rank(0), 0);
    EXPECT_EQ(smlora_padded_rank(1), 8);
    EXPECT_EQ(smlora_padded_rank(8), 8);
    EXPECT_EQ(smlora_padded_rank(17), 24);
    EXPECT_EQ(smlora_padded_rank(256), 256);
    EXPECT_EQ(smlora_padded_rank(257), 0);
    EXPECT_EQ(smlora_padded_rank(-1), 0);
}

TEST_F(CApi, TheEngineHasTheBackendThatWasAskedFor) {
    smlora_backend backend = -1;
    ASSERT_EQ(smlora_engine_backend(engine_, &backend), SMLORA_OK);
    EXPECT_EQ(backend, SMLORA_BACKEND_CPU);
    EXPECT_EQ(smlora_synchronize(engine_, nullptr), SMLORA_OK);
}

TEST_F(CApi, ACacheRootThatIsAFileIsRefused) {
    const std::string file = (root_ / "file").string();
    fclose(fopen(file.c_str(), "w"));
    smlora_engine_options options;
    smlora_engine_options_init(&options, sizeof options);
    options.backend = SMLORA_BACKEND_CPU;
    options.cache_root = file.c_str();
    smlora_engine* engine = nullptr;
    EXPECT_EQ(smlora_engine_create(&options, &engine), SMLORA_IO);
    EXPECT_NE(std::string(smlora_last_error()).find(file), std::string::npos) << smlora_last_error();
    EXPECT_EQ(engine, nullptr);
}

TEST_F(CApi, AShippedLayerIsUsedIfItIsFitAndLeftOutWithAWarningIfItIsNot) {
    const fs::path shipped = root_ / "shipped";
    std::vector<std::string> warnings;
    const auto layers = [&] {
        smlora_engine_options options;
        smlora_engine_options_init(&options, sizeof options);
        const char* none[] = {nullptr};
        options.backend = SMLORA_BACKEND_CPU;
        options.cache_root = root_.c_str();
        options.cache_layers = none;
        options.shipped_layer = shipped.c_str();
        options.log = [](smlora_log_level level, const char* line, void* user) {
            if (level == SMLORA_LOG_WARNING) static_cast<std::vector<std::string>*>(user)->emplace_back(line);
        };
        options.log_user = &warnings;
        smlora_engine* engine = nullptr;
        EXPECT_EQ(smlora_engine_create(&options, &engine), SMLORA_OK) << smlora_last_error();
        char* text = nullptr;
        EXPECT_EQ(smlora_cache_layers(engine, &text), SMLORA_OK) << smlora_last_error();
        smlora_engine_destroy(engine);
        return take(text);
    };
    EXPECT_EQ(layers().find(shipped.string()), std::string::npos) << "missing";
    fs::create_directory(shipped);
    fs::permissions(shipped, fs::perms::owner_all);
    EXPECT_NE(layers().find(shipped.string()), std::string::npos);
    EXPECT_TRUE(warnings.empty());
    fs::permissions(shipped, fs::perms::owner_all | fs::perms::group_all);
    EXPECT_EQ(layers().find(shipped.string()), std::string::npos) << "its group may write to it";
    EXPECT_EQ(warnings.size(), 1u);
    const smlora::testing::ScopedVariable off("SMLORA_SHIPPED_CACHE", "0");
    fs::permissions(shipped, fs::perms::owner_all);
    EXPECT_EQ(layers().find(shipped.string()), std::string::npos);
    EXPECT_EQ(warnings.size(), 1u);
}

TEST_F(CApi, NullPointersAreNamedNeverFollowed) {
    EXPECT_EQ(smlora_engine_create(nullptr, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "engine: expected a pointer, got null");
    EXPECT_EQ(smlora_synchronize(nullptr, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_engine_backend(engine_, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_cache_stats(nullptr, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_cache_inspect(engine_, nullptr, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_prewarm(engine_, nullptr, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_tune(engine_, nullptr, nullptr, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_buffer_create(engine_, 1, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_buffer_fill(nullptr, 0), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "buffer: expected a pointer, got null");
    EXPECT_EQ(smlora_buffer_data(nullptr), nullptr);
    EXPECT_EQ(smlora_buffer_bytes(nullptr), 0u);
    smlora_engine_destroy(nullptr);
    smlora_buffer_destroy(nullptr);
    smlora_free_string(nullptr);
}

TEST_F(CApi, BuffersCopyAndFill) {
    smlora_buffer* buffer = nullptr;
    ASSERT_EQ(smlora_buffer_create(engine_, 8, &buffer), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(smlora_buffer_bytes(buffer), 8u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(smlora_buffer_data(buffer)) % 256, 0u);
    ASSERT_EQ(smlora_buffer_fill(buffer, 0x11), SMLORA_OK);
    const unsigned char source[] = {1, 2, 3};
    ASSERT_EQ(smlora_buffer_copy_from_host(buffer, source, 3, 4), SMLORA_OK);
    std::vector<unsigned char> target(6);
    ASSERT_EQ(smlora_buffer_copy_to_host(buffer, target.data(), 6, 2), SMLORA_OK);
    EXPECT_EQ(target, (std::vector<unsigned char>{0x11, 0x11, 1, 2, 3, 0x11}));
    EXPECT_EQ(smlora_buffer_copy_from_host(buffer, source, 3, 6), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_buffer_copy_to_host(buffer, target.data(), 1, SIZE_MAX), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_buffer_copy_to_host(buffer, nullptr, 1, 0), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "target: expected a pointer, got null");
    smlora_buffer_destroy(buffer);
}

// The sanitizers' allocators end the process instead of throwing.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_F(CApi, MoreMemoryThanThereIsIsOutOfMemory) {
    smlora_buffer* buffer = nullptr;
    EXPECT_EQ(smlora_buffer_create(engine_, SIZE_MAX / 2, &buffer), SMLORA_OUT_OF_MEMORY) << smlora_last_error();
    EXPECT_EQ(buffer, nullptr);
}
#endif

TEST_F(CApi, SystemInfoIsJson) {
    char* text = nullptr;
    ASSERT_EQ(smlora_system_info(&text), SMLORA_OK) << smlora_last_error();
    const json system = json::parse(take(text));
    EXPECT_EQ(system["smlora_version"], SMLORA_VERSION);
    EXPECT_TRUE(system["devices"].is_array());
}

TEST_F(CApi, TheCacheAnswersInJson) {
    char* text = nullptr;
    ASSERT_EQ(smlora_cache_layers(engine_, &text), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(json::parse(take(text))["layers"][0]["root"], root_.string());
    ASSERT_EQ(smlora_cache_stats(engine_, &text), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(json::parse(take(text))["entries"], 0);
    ASSERT_EQ(smlora_cache_list(engine_, &text), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(json::parse(take(text))["entries"], json::array());
    ASSERT_EQ(smlora_cache_verify(engine_, &text), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(json::parse(take(text))["problems"], json::array());
    EXPECT_EQ(smlora_cache_inspect(engine_, "0123", &text), SMLORA_INVALID_ARGUMENT);
    std::uint64_t removed = 77;
    ASSERT_EQ(smlora_cache_clear(engine_, &removed), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(removed, 0u);
    EXPECT_EQ(smlora_cache_count_use(engine_), SMLORA_OK) << smlora_last_error();
}

}  // namespace
