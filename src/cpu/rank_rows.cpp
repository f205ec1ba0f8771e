#include "cpu/rank_rows.hpp"

#include "cpu/elements.hpp"
#include "limits.hpp"

#include <algorithm>
#include <cstring>

namespace smlora::cpu {

template <class Acc>
RankRows RankRows::compute(util::ThreadPool& threads, const RoutedRows& rows, const Problem& problem,
                           const RowProduct<Acc>& product, float scaling, const Tensor& out) {
    const std::int64_t stride = padded_rank(problem);
    const std::size_t row_bytes = static_cast<std::size_t>(stride) * size_of(problem.dtype);
    const std::size_t bytes = static_cast<std::size_t>(rows.size()) * row_bytes;
    RankRows result;
    if (out.given()) {
        result.view_ = out;
    } else {
        result.memory_.resize(bytes);
        result.view_ = Tensor(result.memory_.data(), problem.dtype, {rows.size(), problem.R}, {stride, 1});
    }
    if (bytes == 0) return result;
    // All bits zero is +0 in every format.
    if (scaling == 0) {
        std::memset(result.view_.data, 0, bytes);
        return result;
    }
    std::memset(row_at(result.view_, rows.routed()), 0,
                static_cast<std::size_t>(rows.size() - rows.routed()) * row_bytes);
    const auto factor = static_cast<Acc>(scaling);
    multiply_rows<Acc>(threads, rows, {&product, 1}, 0, problem.R, [&](const Segment<Acc>& segment) {
        Acc line[padded_rank(Problem{.R = max_rank})];
        for (std::int64_t r = 0; r < problem.R; ++r) line[r] = factor * segment.values[r];
        std::fill(line + problem.R, line + stride, Acc{0});
        store_row(line, stride, row_at(result.view_, segment.row), problem.dtype);
    });
    return result;
}

template <class Acc>
Factor<Acc> RankRows::by_row() const {
    return {.data = view_.data, .dtype = view_.dtype, .outer_stride = view_.strides[0], .k_stride = 1};
}

template <class Acc>
Factor<Acc> RankRows::by_rank() const {
    return {.data = view_.data, .dtype = view_.dtype, .outer_stride = 1, .k_stride = view_.strides[0]};
}

template RankRows RankRows::compute(util::ThreadPool&, const RoutedRows&, const Problem&, const RowProduct<float>&,
                                    float, const Tensor&);
template RankRows RankRows::compute(util::ThreadPool&, const RoutedRows&, const Problem&, const RowProduct<double>&,
                                    float, const Tensor&);
template Factor<float> RankRows::by_row() const;
template Factor<double> RankRows::by_row() const;
template Factor<float> RankRows::by_rank() const;
template Factor<double> RankRows::by_rank() const;

}  // namespace smlora::cpu
