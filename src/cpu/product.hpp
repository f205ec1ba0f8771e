// Products over the routed rows, cut into tiles and spread over the threads. The bits of a result do not depend on the
// number of threads.
#pragma once

#include "cpu/encoded_matrix.hpp"
#include "cpu/isa/kernels.hpp"
#include "cpu/routed_rows.hpp"
#include "util/thread_pool.hpp"

#include <smlora/tensor.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace smlora::cpu {

/// A factor that is another matrix for each expert.
template <class Acc>
struct ExpertFactor {
    Factor<Acc> factor;
    std::int64_t expert_stride = 0;
    std::shared_ptr<const EncodedMatrix> encoded = nullptr;  ///< of a quantised weight, in place of the others

    [[nodiscard]] Factor<Acc> of(std::int64_t e) const;
};

/// sum over k < depth of rows(i, k) matrix_e(k, column) for the sorted row i of expert e.
template <class Acc>
struct RowProduct {
    Factor<Acc> rows;  ///< outer: the sorted position
    ExpertFactor<Acc> matrix;
    std::int64_t depth = 0;
};

/// Consecutive columns of one row of a result.
template <class Acc>
struct Segment {
    std::int64_t expert;
    std::int64_t row;
    std::int64_t column;
    std::int64_t columns;  ///< at most tile_columns
    const Acc* values;
};

template <class Acc>
using SegmentSink = std::function<void(const Segment<Acc>&)>;

/// The sum of the products, columns `begin` to `end`: `sink` is called from all threads, once for each segment of each
/// routed row; segments start at begin + n * tile_columns.
template <class Acc>
void multiply_rows(util::ThreadPool& threads, const RoutedRows& rows, std::span<const RowProduct<Acc>> products,
                   std::int64_t begin, std::int64_t end, const SegmentSink<Acc>& sink);

/// For each expert, the sum over its sorted rows i of left(row, i) right(i, column), for row < left_rows and
/// column < columns; zero for an expert without rows.
template <class Acc>
void multiply_experts(util::ThreadPool& threads, const RoutedRows& rows, const Factor<Acc>& left,
                      std::int64_t left_rows, const Factor<Acc>& right, std::int64_t columns,
                      const SegmentSink<Acc>& sink);

/// Rows of a tensor [rows, columns] as a factor: outer is the sorted position, k the column.
template <class Acc>
[[nodiscard]] Factor<Acc> gathered_rows(const Tensor& tensor, const std::vector<std::int64_t>& row_of_position);

/// A view [E, ., .]: outer along one dimension, k along the other.
template <class Acc>
[[nodiscard]] ExpertFactor<Acc> expert_matrix(const Tensor& tensor, int outer_dimension, int k_dimension);

}  // namespace smlora::cpu
