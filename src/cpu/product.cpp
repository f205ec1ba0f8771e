#include "cpu/product.hpp"

#include "cpu/elements.hpp"
#include "cpu/tile.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace smlora::cpu {
namespace {

struct RowBlock {
    std::int64_t expert;
    std::int64_t begin;
    std::int64_t rows;
};

/// Blocks of an expert are of about equal height: a last one of a few rows would read the whole matrix for them.
std::vector<RowBlock> row_blocks(const RoutedRows& rows) {
    std::vector<RowBlock> blocks;
    for (std::int64_t e = 0; e < rows.experts(); ++e) {
        const std::int64_t count = rows.begin(e + 1) - rows.begin(e);
        const std::int64_t pieces = (count + tile_rows - 1) / tile_rows;
        for (std::int64_t piece = 0; piece < pieces; ++piece) {
            const std::int64_t begin = count * piece / pieces;
            const std::int64_t end = count * (piece + 1) / pieces;
            blocks.push_back({e, rows.begin(e) + begin, end - begin});
        }
    }
    return blocks;
}

std::int64_t column_blocks(std::int64_t columns) { return (columns + tile_columns - 1) / tile_columns; }

template <class Acc>
const Kernels<Acc>& kernels() {
    return kernel_sets().front().get<Acc>();
}

/// Adds the product of a quantised matrix, a slab of it at a time.
template <class Acc>
void add_encoded(Tile<Acc>& tile, const RowProduct<Acc>& product, const RowBlock& block, std::int64_t column,
                 std::int64_t columns) {
    constexpr std::int64_t slab_depth = 8 * Tile<Acc>::depth_step;
    std::vector<std::byte> memory;
    for (std::int64_t k = 0; k < product.depth; k += slab_depth) {
        const std::int64_t depth = std::min(slab_depth, product.depth - k);
        const Factor<Acc> slab =
            product.matrix.encoded->template decode<Acc>(block.expert, column, columns, k, depth, memory);
        tile.add(product.rows, {block.begin, k}, slab, {0, 0}, depth);
    }
}

template <class Acc>
void emit(const Tile<Acc>& tile, std::int64_t rows, Segment<Acc> segment, const SegmentSink<Acc>& sink) {
    const std::int64_t first = segment.row;
    for (std::int64_t i = 0; i < rows; ++i) {
        segment.row = first + i;
        segment.values = tile.row(i);
        sink(segment);
    }
}

}  // namespace

template <class Acc>
Factor<Acc> ExpertFactor<Acc>::of(std::int64_t e) const {
    Factor<Acc> result = factor;
    result.data = element_at(factor.data, factor.dtype, e * expert_stride);
    return result;
}

template <class Acc>
void multiply_rows(util::ThreadPool& threads, const RoutedRows& rows, std::span<const RowProduct<Acc>> products,
                   std::int64_t begin, std::int64_t end, const SegmentSink<Acc>& sink) {
    const std::vector<RowBlock> blocks = row_blocks(rows);
    const std::int64_t across = column_blocks(end - begin);
    threads.parallel_for(static_cast<std::int64_t>(blocks.size()) * across, [&](std::int64_t index) {
        const RowBlock& block = blocks[static_cast<std::size_t>(index / across)];
        const std::int64_t column = begin + index % across * tile_columns;
        const std::int64_t columns = std::min(tile_columns, end - column);
        Tile<Acc> tile(kernels<Acc>(), block.rows, columns);
        for (const RowProduct<Acc>& product : products) {
            if (product.matrix.encoded) {
                add_encoded(tile, product, block, column, columns);
            } else {
                tile.add(product.rows, {block.begin, 0}, product.matrix.of(block.expert), {column, 0}, product.depth);
            }
        }
        emit<Acc>(tile, block.rows, {block.expert, block.begin, column, columns, nullptr}, sink);
    });
}

template <class Acc>
void multiply_experts(util::ThreadPool& threads, const RoutedRows& rows, const Factor<Acc>& left,
                      std::int64_t left_rows, const Factor<Acc>& right, std::int64_t columns,
                      const SegmentSink<Acc>& sink) {
    const std::int64_t across = column_blocks(columns);
    const std::int64_t down = (left_rows + tile_rows - 1) / tile_rows;
    threads.parallel_for(rows.experts() * down * across, [&](std::int64_t index) {
        const std::int64_t e = index / (down * across);
        const std::int64_t row = index / across % down * tile_rows;
        const std::int64_t height = std::min(tile_rows, left_rows - row);
        const std::int64_t column = index % across * tile_columns;
        const std::int64_t width = std::min(tile_columns, columns - column);
        Tile<Acc> tile(kernels<Acc>(), height, width);
        const std::int64_t first = rows.begin(e);
        tile.add(left, {row, first}, right, {column, first}, rows.begin(e + 1) - first);
        emit<Acc>(tile, height, {e, row, column, width, nullptr}, sink);
    });
}

template <class Acc>
Factor<Acc> gathered_rows(const Tensor& tensor, const std::vector<std::int64_t>& row_of_position) {
    return {.data = tensor.data,
            .dtype = tensor.dtype,
            .outer_stride = tensor.strides[0],
            .k_stride = 1,
            .outer_index = row_of_position.data()};
}

template <class Acc>
ExpertFactor<Acc> expert_matrix(const Tensor& tensor, int outer_dimension, int k_dimension) {
    return {.factor = {.data = tensor.data,
                       .dtype = tensor.dtype,
                       .outer_stride = tensor.strides[static_cast<std::size_t>(outer_dimension)],
                       .k_stride = tensor.strides[static_cast<std::size_t>(k_dimension)]},
            .expert_stride = tensor.strides[0]};
}

template struct ExpertFactor<float>;
template struct ExpertFactor<double>;
template void multiply_rows(util::ThreadPool&, const RoutedRows&, std::span<const RowProduct<float>>, std::int64_t,
                            std::int64_t, const SegmentSink<float>&);
template void multiply_rows(util::ThreadPool&, const RoutedRows&, std::span<const RowProduct<double>>, std::int64_t,
                            std::int64_t, const SegmentSink<double>&);
template void multiply_experts(util::ThreadPool&, const RoutedRows&, const Factor<float>&, std::int64_t,
                               const Factor<float>&, std::int64_t, const SegmentSink<float>&);
template void multiply_experts(util::ThreadPool&, const RoutedRows&, const Factor<double>&, std::int64_t,
                               const Factor<double>&, std::int64_t, const SegmentSink<double>&);
template Factor<float> gathered_rows(const Tensor&, const std::vector<std::int64_t>&);
template Factor<double> gathered_rows(const Tensor&, const std::vector<std::int64_t>&);
template ExpertFactor<float> expert_matrix(const Tensor&, int, int);
template ExpertFactor<double> expert_matrix(const Tensor&, int, int);

}  // namespace smlora::cpu
