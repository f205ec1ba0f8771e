// What passes as the same result, and what does not.
#include "autotune/compare_results.hpp"

#include "cpu/convert.hpp"
#include "util/thread_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace smlora::autotune {
namespace {

struct Matrix {
    std::vector<float> values;
    std::int64_t rows, columns;

    [[nodiscard]] std::string bf16() const {
        std::string bytes;
        for (const float value : values) {
            const std::uint16_t bits = cpu::to_bf16(value).bits;
            bytes.append(reinterpret_cast<const char*>(&bits), 2);
        }
        return bytes;
    }
};

Matrix random_matrix(unsigned seed) {
    Matrix matrix{{}, 20, 64};
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 30);
    for (int i = 0; i < 20 * 64; ++i) matrix.values.push_back(normal(random));
    return matrix;
}

class CompareResults : public ::testing::Test {
 protected:
    tuning::Verification compare(const Matrix& got) {
        return compare_results(got.bf16(), right.bf16(), {got.rows, got.columns, got.columns}, DType::bf16, DType::bf16,
                               threads);
    }
    util::ThreadPool threads{4};
    unsigned seed = std::random_device()();
    Matrix right = random_matrix(seed);
    std::mt19937 random{seed + 1};
};

TEST_F(CompareResults, SumsInAnotherOrderPass) {
    Matrix got = right;
    std::normal_distribution<float> rounding(0, 30 * 1e-4F);
    for (float& value : got.values) value += rounding(random);
    EXPECT_EQ(compare(got).refusal, "") << "seed " << seed;
    EXPECT_LT(compare(got).error, 5e-3);
    EXPECT_EQ(compare(right).error, 0);
}

TEST_F(CompareResults, TheAnswerDoesNotDependOnTheThreads) {
    Matrix got = right;
    std::normal_distribution<float> rounding(0, 30 * 1e-3F);
    for (float& value : got.values) value += rounding(random);
    Matrix wrong = got;
    for (std::size_t row = 3; row < 20; ++row) wrong.values[row * 64 + 5] += 100;
    util::ThreadPool alone(1);
    for (const Matrix& matrix : {got, wrong}) {
        const tuning::Verification one =
            compare_results(matrix.bf16(), right.bf16(), {20, 64, 64}, DType::bf16, DType::bf16, alone);
        for (int round = 0; round < 20; ++round) {
            EXPECT_EQ(compare(matrix).error, one.error);
            EXPECT_EQ(compare(matrix).refusal, one.refusal);
        }
    }
    EXPECT_EQ(compare(wrong).refusal.substr(0, 16), "row 3, column 5:") << "the first that is wrong";
}

TEST_F(CompareResults, ASingleWrongElementIsFoundWhereverItIs) {
    for (int round = 0; round < 200; ++round) {
        Matrix got = right;
        const std::size_t at = random() % got.values.size();
        got.values[at] += 30 * 0.1F;
        const auto result = compare(got);
        EXPECT_NE(result.refusal.find("row " + std::to_string(at / 64) + ", column " + std::to_string(at % 64) + ":"),
                  std::string::npos)
            << result.refusal << ", seed " << seed;
    }
}

/// The same matrix as [columns / run, rows, run].
Matrix in_runs(const Matrix& matrix, std::int64_t run) {
    Matrix result = matrix;
    auto to = result.values.begin();
    for (std::int64_t first = 0; first < matrix.columns; first += run) {
        for (std::int64_t row = 0; row < matrix.rows; ++row) {
            to = std::copy_n(matrix.values.begin() + row * matrix.columns + first, run, to);
        }
    }
    return result;
}

TEST_F(CompareResults, ColumnsInRunsAreComparedAsTheRowsThatTheyBelongTo) {
    // A row whose size is far from the others': only beside its own can an element be judged.
    for (int column = 0; column < 64; ++column) right.values[static_cast<std::size_t>(5 * 64 + column)] *= 1e-3F;
    Matrix got = right;
    got.values[5 * 64 + 41] += 30 * 1e-3F * 0.1F;
    for (const std::int64_t run : {1, 8, 16, 32}) {
        const auto compare_in_runs = [&](const Matrix& matrix) {
            return compare_results(in_runs(matrix, run).bf16(), in_runs(right, run).bf16(), {20, 64, run}, DType::bf16,
                                   DType::bf16, threads);
        };
        EXPECT_EQ(compare_in_runs(right).refusal, "");
        EXPECT_EQ(compare_in_runs(got).refusal, compare(got).refusal) << "seed " << seed;
        EXPECT_NE(compare_in_runs(got).refusal.find("row 5, column 41:"), std::string::npos) << "seed " << seed;
    }
}

TEST_F(CompareResults, WhatWasNotWrittenAndWhatIsNoNumberIsWrong) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 0.0F}) {
        Matrix got = right;
        got.values[777] = value;
        right.values[777] = 30;
        EXPECT_NE(compare(got).refusal, "") << value;
    }
}

TEST_F(CompareResults, RowsOfZerosMustBeZeros) {
    for (int column = 0; column < 64; ++column) right.values[static_cast<std::size_t>(5 * 64 + column)] = 0;
    Matrix got = right;
    EXPECT_EQ(compare(got).refusal, "");
    got.values[5 * 64 + 9] = 1e-6F;
    EXPECT_NE(compare(got).refusal, "");
}

}  // namespace
}  // namespace smlora::autotune
