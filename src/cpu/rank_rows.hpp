// XA and YB: the rows of a projection's input or gradient in the space of the adapter's rank.
#pragma once

#include "cpu/product.hpp"

#include <smlora/problem.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace smlora::cpu {

/// [M, padded_rank] of problem.dtype, sorted. Rounded whether a caller sees it or not, so that what is computed from it
/// does not depend on that.
class RankRows {
 public:
    /// Views what an earlier operation wrote.
    explicit RankRows(const Tensor& tensor) : view_(tensor) {}
    RankRows(RankRows&&) = default;
    RankRows& operator=(RankRows&&) = default;

    /// scaling * rows(i) matrix_e, into `out` or memory of its own if it is not given. Padding columns and the rows of
    /// entries left out are zero; with scaling = 0 so is everything, whatever the factors hold.
    template <class Acc>
    static RankRows compute(util::ThreadPool& threads, const RoutedRows& rows, const Problem& problem,
                            const RowProduct<Acc>& product, float scaling, const Tensor& out);

    /// Outer: the sorted position, k: the rank.
    template <class Acc>
    [[nodiscard]] Factor<Acc> by_row() const;
    /// Outer: the rank, k: the sorted position.
    template <class Acc>
    [[nodiscard]] Factor<Acc> by_rank() const;

 private:
    RankRows() = default;

    std::vector<std::byte> memory_;
    Tensor view_;
};

}  // namespace smlora::cpu
