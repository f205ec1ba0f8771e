#include "cpu/encoded_matrix.hpp"

#include "cpu/elements.hpp"

namespace smlora::cpu {

template <class Acc>
Factor<Acc> EncodedMatrix::decode(std::int64_t expert, std::int64_t outer, std::int64_t outer_count, std::int64_t k,
                                  std::int64_t depth, std::vector<std::byte>& memory) const {
    const std::int64_t first_row = outer_rows_ ? outer : k;
    const std::int64_t rows = outer_rows_ ? outer_count : depth;
    const std::int64_t first_column = outer_rows_ ? k : outer;
    const std::int64_t columns = outer_rows_ ? depth : outer_count;
    memory.resize(static_cast<std::size_t>(rows * columns) * size_of(dtype_));
    std::vector<float> values(static_cast<std::size_t>(columns));
    for (std::int64_t row = 0; row < rows; ++row) {
        decoder_.decode(expert, first_row + row, first_column, columns, values.data());
        store_row(values.data(), columns, element_at(memory.data(), dtype_, row * columns), dtype_);
    }
    return {.data = memory.data(),
            .dtype = dtype_,
            .outer_stride = outer_rows_ ? columns : 1,
            .k_stride = outer_rows_ ? 1 : columns};
}

template Factor<float> EncodedMatrix::decode(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                             std::vector<std::byte>&) const;
template Factor<double> EncodedMatrix::decode(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                              std::vector<std::byte>&) const;

}  // namespace smlora::cpu
