#include <smlora/dtype.hpp>
#include <smlora/error.hpp>

#include <gtest/gtest.h>

namespace smlora {
namespace {

TEST(DType, HasSizeAndName) {
    EXPECT_EQ(size_of(DType::bf16), 2U);
    EXPECT_EQ(size_of(DType::fp16), 2U);
    EXPECT_EQ(size_of(DType::fp32), 4U);
    EXPECT_EQ(size_of(DType::fp64), 8U);
    EXPECT_EQ(size_of(DType::int32), 4U);
    EXPECT_EQ(size_of(DType::int64), 8U);
    EXPECT_EQ(name(DType::bf16), "bf16");
    for (DType dtype : {DType::uint8, DType::int8, DType::e4m3, DType::e8m0}) EXPECT_EQ(size_of(dtype), 1U);
    EXPECT_EQ(name(DType::int64), "int64");
    EXPECT_EQ(name(DType::e8m0), "e8m0");
}

TEST(DType, IsFoundByItsNames) {
    for (DType dtype : {DType::bf16, DType::fp16, DType::fp32, DType::fp64, DType::int32, DType::int64, DType::uint8,
                        DType::int8, DType::e4m3, DType::e8m0}) {
        EXPECT_EQ(dtype_from_name(name(dtype)), dtype);
    }
    EXPECT_EQ(dtype_from_name("bfloat16"), DType::bf16);
    EXPECT_EQ(dtype_from_name("float16"), DType::fp16);
    EXPECT_EQ(dtype_from_name("half"), DType::fp16);
    EXPECT_EQ(dtype_from_name("float32"), DType::fp32);
    EXPECT_EQ(dtype_from_name("float"), DType::fp32);
    EXPECT_EQ(dtype_from_name("float64"), DType::fp64);
    EXPECT_EQ(dtype_from_name("double"), DType::fp64);
}

TEST(DType, RefusesOtherNamesAndValues) {
    for (const char* text : {"", "BF16", "fp8", "int4"}) {
        try {
            (void)dtype_from_name(text);
            ADD_FAILURE() << text;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            EXPECT_NE(std::string(error.what()).find('"' + std::string(text) + '"'), std::string::npos);
        }
    }
    EXPECT_THROW((void)size_of(static_cast<DType>(10)), Error);
    EXPECT_THROW((void)name(static_cast<DType>(-1)), Error);
}

}  // namespace
}  // namespace smlora
