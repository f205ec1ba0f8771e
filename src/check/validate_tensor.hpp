// The checks of one tensor against what an operation expects of it. They allocate nothing unless they fail.
#pragma once

#include <smlora/problem.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <initializer_list>

namespace smlora::check {

/// One extent of an expected shape: what the documentation calls it, and its value.
struct Extent {
    const char* symbol;
    std::int64_t value;
};

/// What is asked of the strides. The stride of an extent of 1 means nothing and is never looked at.
enum class Strides {
    contiguous,  ///< row-major without gaps
    rows,        ///< [rows, columns]: columns contiguous, rows apart by at least their length
    matrices,    ///< [E, rows, columns]: each matrix row-major without gaps, matrices anywhere
    any,         ///< for inputs: none is negative
    disjoint,    ///< for outputs: no two elements share memory
};

/// Throws Error{invalid_argument} "<argument>: expected .., got ..".
void check_tensor(const char* argument, const Tensor& tensor, DType dtype, std::initializer_list<Extent> shape,
                  Strides strides);

/// A tensor of any shape whose elements, so many in all, lie one after the other.
void check_elements(const char* argument, const Tensor& tensor, DType dtype, Extent count);

/// xa and yb: [M, R] with strides {padded_rank, 1}.
void check_rank_rows(const char* argument, const Tensor& tensor, const Problem& problem, std::int64_t M);

/// All columns of xa or yb that are written and read: those of the padding as well.
[[nodiscard]] Tensor with_padding(const Tensor& rank_rows, const Problem& problem);

/// `reason` ends the sentence "<argument>: expected not to be given ..".
void check_absent(const char* argument, const Tensor& tensor, const char* reason);

/// `reason` ends the sentence "<argument>: expected to be given ..".
void check_given(const char* argument, const Tensor& tensor, const char* reason);

/// The tokens of rows in `order`, read off the first extent. The rest of the tensor is not checked.
[[nodiscard]] std::int64_t tokens_of_rows(const char* argument, const Tensor& rows, RowOrder order,
                                          const Problem& problem);

/// The tokens of top_idx, read off the first extent, and that its dtype is one of indices.
[[nodiscard]] std::int64_t tokens_of_choices(const Tensor& top_idx);

}  // namespace smlora::check
