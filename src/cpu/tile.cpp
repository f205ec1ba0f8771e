#include "cpu/tile.hpp"

#include <algorithm>

namespace smlora::cpu {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

template <class Acc>
Tile<Acc>::Tile(const Kernels<Acc>& kernels, std::int64_t rows, std::int64_t columns)
    : kernels_(kernels),
      rows_(rows),
      columns_(columns),
      padded_rows_(round_up(rows, kernels.rows)),
      stride_(round_up(columns, kernels.columns)),
      sums_(padded_rows_ * stride_),
      left_panels_(padded_rows_ * depth_step),
      right_panel_(kernels.columns * depth_step) {
    // Products are added to +0, so a sum is never -0, and adding an adapter of zeros changes no bit.
    std::fill_n(sums_.data(), padded_rows_ * stride_, Acc{0});
}

template <class Acc>
void Tile<Acc>::add(const Factor<Acc>& left, Start row, const Factor<Acc>& right, Start column0, std::int64_t depth) {
    for (std::int64_t done = 0; done < depth; done += depth_step) {
        const std::int64_t block = std::min(depth_step, depth - done);
        kernels_.pack_left(left, row.outer, rows_, row.k + done, block, left_panels_.data());
        for (std::int64_t column = 0; column < columns_; column += kernels_.columns) {
            const std::int64_t width = std::min(kernels_.columns, columns_ - column);
            kernels_.pack_right(right, column0.outer + column, width, column0.k + done, block, right_panel_.data());
            for (std::int64_t i = 0; i < padded_rows_; i += kernels_.rows) {
                kernels_.multiply(block, left_panels_.data() + i * block, right_panel_.data(),
                                  sums_.data() + i * stride_ + column, stride_);
            }
        }
    }
}

template class Tile<float>;
template class Tile<double>;

}  // namespace smlora::cpu
