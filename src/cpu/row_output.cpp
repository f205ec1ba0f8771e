#include "cpu/row_output.hpp"

#include "cpu/elements.hpp"
#include "cpu/tile.hpp"

#include <algorithm>
#include <cstring>

namespace smlora::cpu {
namespace {

/// Columns of unrounded rows that are held at once.
template <class Acc>
std::int64_t chunk_columns(const RoutedRows& rows) {
    constexpr std::int64_t budget = std::int64_t{256} << 20;  // bytes
    const std::int64_t column_bytes = std::max<std::int64_t>(1, rows.routed()) * static_cast<std::int64_t>(sizeof(Acc));
    return std::max<std::int64_t>(1, budget / column_bytes / tile_columns) * tile_columns;
}

template <class Acc>
void sum_tokens(util::ThreadPool& threads, const RoutedRows& rows, const Acc* unrounded, std::int64_t width,
                std::int64_t column, const RowOutput<Acc>& output) {
    const std::int64_t tokens = rows.tokens();
    const std::int64_t top_k = tokens == 0 ? 1 : rows.size() / tokens;
    threads.parallel_for(tokens, [&](std::int64_t t) {
        std::vector<Acc> sum(static_cast<std::size_t>(width));
        for (std::int64_t f = t * top_k; f < (t + 1) * top_k; ++f) {
            const std::int64_t i = rows.position(f);
            if (i >= rows.routed()) continue;
            const Acc gate = output.gates.empty() ? Acc{1} : output.gates[static_cast<std::size_t>(f)];
            const Acc* row = unrounded + i * width;
            for (std::int64_t c = 0; c < width; ++c) sum[static_cast<std::size_t>(c)] += gate * row[c];
        }
        store_row(sum.data(), width, row_at(output.tensor, t, column), output.tensor.dtype);
    });
}

template <class Acc>
void multiply_into_tokens(util::ThreadPool& threads, const RoutedRows& rows, std::span<const RowProduct<Acc>> products,
                          const RowOutput<Acc>& output) {
    const std::int64_t columns = output.tensor.shape[1];
    const std::int64_t chunk = std::min(columns, chunk_columns<Acc>(rows));
    const AlignedArray<Acc> unrounded(rows.routed() * chunk);
    for (std::int64_t begin = 0; begin < columns; begin += chunk) {
        const std::int64_t width = std::min(chunk, columns - begin);
        multiply_rows<Acc>(threads, rows, products, begin, begin + width, [&](const Segment<Acc>& segment) {
            output.finish(segment, unrounded.data() + segment.row * width + segment.column - begin);
        });
        sum_tokens(threads, rows, unrounded.data(), width, begin, output);
    }
}

}  // namespace

template <class Acc>
void multiply_into(util::ThreadPool& threads, const RoutedRows& rows, std::span<const RowProduct<Acc>> products,
                   const RowOutput<Acc>& output) {
    if (output.order == RowOrder::token) {
        multiply_into_tokens(threads, rows, products, output);
        return;
    }
    const Tensor& tensor = output.tensor;
    const std::int64_t columns = tensor.shape[1];
    const std::vector<std::int64_t> row_of_position = rows.rows_in(output.order);
    multiply_rows<Acc>(threads, rows, products, 0, columns, [&](const Segment<Acc>& segment) {
        Acc line[tile_columns];
        output.finish(segment, line);
        const std::int64_t row = row_of_position[static_cast<std::size_t>(segment.row)];
        store_row(line, segment.columns, row_at(tensor, row, segment.column), tensor.dtype);
    });
    threads.parallel_for(rows.size() - rows.routed(), [&](std::int64_t i) {
        const std::int64_t row = row_of_position[static_cast<std::size_t>(rows.routed() + i)];
        std::memset(row_at(tensor, row), 0, static_cast<std::size_t>(columns) * size_of(tensor.dtype));
    });
}

template void multiply_into(util::ThreadPool&, const RoutedRows&, std::span<const RowProduct<float>>,
                            const RowOutput<float>&);
template void multiply_into(util::ThreadPool&, const RoutedRows&, std::span<const RowProduct<double>>,
                            const RowOutput<double>&);

}  // namespace smlora::cpu
