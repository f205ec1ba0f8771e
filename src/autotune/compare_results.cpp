#include "autotune/compare_results.hpp"

#include "cpu/convert.hpp"
#include "util/thread_pool.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace smlora::autotune {
namespace {

float element(const std::string& bytes, std::int64_t index, DType dtype) {
    const char* const at = bytes.data() + static_cast<std::size_t>(index) * size_of(dtype);
    if (dtype == DType::fp32) {
        float value;
        std::memcpy(&value, at, sizeof value);
        return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    return dtype == DType::bf16 ? cpu::to_float(cpu::Bf16{bits}) : cpu::to_float(cpu::Fp16{bits});
}

/// The largest distance of neighbouring numbers, relative.
double unit(DType dtype) { return dtype == DType::bf16 ? 0x1p-7 : dtype == DType::fp16 ? 0x1p-10 : 0x1p-23; }

/// Of the result as a whole; what sums in another order leaves is a fifth of it at most.
double most_error(DType computed_in) { return unit(computed_in) / 2; }

/// What comparing a row showed.
struct RowResult {
    std::string refusal;
    double error_squares = 0;
    double squares = 0;
};

RowResult compare_row(const std::string& got, const std::string& expected, const ResultMatrix& matrix, std::int64_t row,
                      DType dtype, DType computed_in) {
    // use(column, index of the element), until it says no.
    const auto for_each_column = [&](const auto& use) {
        for (std::int64_t first = 0; first < matrix.columns; first += matrix.run) {
            const std::int64_t at = first * matrix.rows + row * matrix.run;
            for (std::int64_t i = 0; i < matrix.run; ++i) {
                if (!use(first + i, at + i)) return;
            }
        }
    };
    // Terms that were rounded to 16 bits before they were summed are off by a third of a unit each, at random.
    const double of_row = 2.5 * unit(computed_in);
    const double of_element = unit(dtype);
    RowResult result;
    for_each_column([&](std::int64_t, std::int64_t at) {
        const double value = element(expected, at, dtype);
        result.squares += value * value;
        return true;
    });
    const double size = std::sqrt(result.squares / static_cast<double>(matrix.columns));
    for_each_column([&](std::int64_t column, std::int64_t at) {
        const double value = element(got, at, dtype);
        const double wanted = element(expected, at, dtype);
        const double off = std::abs(value - wanted);
        result.error_squares += off * off;
        // Written so that a NaN does not pass.
        if (off <= of_element * std::abs(wanted) + of_row * size) return true;
        result.refusal = fmt::format("row {}, column {}: {} instead of {}, in a row of size {:.3g}", row, column, value,
                                     wanted, size);
        return false;
    });
    return result;
}

}  // namespace

tuning::Verification compare_results(const std::string& got, const std::string& expected, const ResultMatrix& matrix,
                                     DType dtype, DType computed_in, util::ThreadPool& threads) {
    const auto elements = static_cast<std::size_t>(matrix.rows * matrix.columns);
    if (std::min(got.size(), expected.size()) < elements * size_of(dtype)) {
        throw Error(ErrorCode::internal, "compare_results: fewer elements than rows x columns");
    }
    std::vector<RowResult> results(static_cast<std::size_t>(matrix.rows));
    threads.parallel_for(matrix.rows, [&](std::int64_t row) {
        results[static_cast<std::size_t>(row)] = compare_row(got, expected, matrix, row, dtype, computed_in);
    });
    double error_squares = 0;
    double squares = 0;
    for (const RowResult& result : results) {
        if (!result.refusal.empty()) return {result.refusal, 1.0};
        error_squares += result.error_squares;
        squares += result.squares;
    }
    const double error = squares > 0 ? std::sqrt(error_squares / squares) : 0;
    if (error <= most_error(computed_in)) return {"", error};
    return {fmt::format("off by {:.2g} of the result's size, {:.2g} are allowed", error, most_error(computed_in)),
            error};
}

}  // namespace smlora::autotune
