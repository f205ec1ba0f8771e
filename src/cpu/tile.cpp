#include "cpu/tile.hpp"

#include <algorithm>

namespace smlora::cpu {
namespace {

// A right panel of this many k must leave room in a first-level cache of 32 KiB for the left panel that passes by.
constexpr std::int64_t block_depth = 192;

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
      left_panels_(padded_rows_ * block_depth),
      right_panel_(kernels.columns * block_depth) {
    // Products are added to +0, so a sum is never -0, and adding an adapter of zeros changes no bit.
    std::fill_n(sums_.data(), padded_rows_ * stride_, Acc{0});
}

template <class Acc>
void Tile<Acc>::add(const Factor<Acc>& left, std::int64_t row0, const Factor<Acc>& right, std::int64_t column0,
                    std::int64_t k0, std::int64_t depth) {
    for (std::int64_t done = 0; done < depth; done += block_depth) {
        const std::int64_t k = k0 + done;
        const std::int64_t block = std::min(block_depth, depth - done);
        kernels_.pack_left(left, row0, rows_, k, block, left_panels_.data());
        for (std::int64_t column = 0; column < columns_; column += kernels_.columns) {
            const std::int64_t width = std::min(kernels_.columns, columns_ - column);
            kernels_.pack_right(right, column0 + column, width, k, block, right_panel_.data());
            for (std::int64_t row = 0; row < padded_rows_; row += kernels_.rows) {
                kernels_.multiply(block, left_panels_.data() + row * block, right_panel_.data(),
                                  sums_.data() + row * stride_ + column, stride_);
            }
        }
    }
}

template class Tile<float>;
template class Tile<double>;

}  // namespace smlora::cpu
