// Comparing what a candidate computed with what the reference did.
#pragma once

#include "tuning/device.hpp"

#include <smlora/dtype.hpp>

#include <cstdint>
#include <string>

namespace smlora::util {
class ThreadPool;
}

namespace smlora::autotune {

/// A matrix of results: its columns lie in runs, [columns / run, rows, run], of which the columns are a multiple.
/// Row-major: one run of all columns.
struct ResultMatrix {
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t run = 0;
};

/// The beginnings of two buffers as such a matrix of `dtype`, which is bf16, fp16 or fp32. An element may be off by one
/// unit of its format's last place, as both were rounded from sums made in another order, and by a share of the row's
/// size that rounding on the way (gates and rank rows in 16 bits) explains. A row that is zero must be zero. NaNs and
/// infinities are wrong. The whole may be off by half a unit of `computed_in`, the format of the operands, by norm.
/// Rows are divided among `threads`; the answer does not depend on how many there are.
[[nodiscard]] tuning::Verification compare_results(const std::string& got, const std::string& expected,
                                                   const ResultMatrix& matrix, DType dtype, DType computed_in,
                                                   util::ThreadPool& threads);

}  // namespace smlora::autotune
