#include "smlora_tune/host_rows.hpp"

#include "smlora_tune/elements.hpp"

#include <algorithm>

namespace smlora::tool {
namespace {

std::vector<unsigned char> read_bytes(const Array& array, std::int64_t first, std::int64_t count) {
    const std::size_t element = size_of(array.tensor.dtype);
    std::vector<unsigned char> bytes(static_cast<std::size_t>(count) * element);
    if (!bytes.empty()) {
        array.buffer.copy_to_host(bytes.data(), bytes.size(), static_cast<std::size_t>(first) * element);
    }
    return bytes;
}

}  // namespace

std::vector<double> read_elements(const Array& array, std::int64_t first, std::int64_t count) {
    const std::vector<unsigned char> bytes = read_bytes(array, first, count);
    std::vector<double> values(static_cast<std::size_t>(count));
    decode(bytes.data(), values.size(), array.tensor.dtype, values.data());
    return values;
}

std::vector<double> read_rows(const Array& array, std::int64_t stride, std::int64_t width,
                              const std::vector<std::int64_t>& rows) {
    std::vector<double> result(rows.size() * static_cast<std::size_t>(width));
    auto out = result.begin();
    for (std::size_t begin = 0; begin < rows.size();) {
        // Neighbours in one copy, up to some megabytes: a copy from the device costs microseconds whatever its size.
        const auto limit = static_cast<std::size_t>(std::max<std::int64_t>(1, (std::int64_t{1} << 22) / stride));
        std::size_t end = begin + 1;
        while (end < rows.size() && end - begin < limit && rows[end] == rows[end - 1] + 1) ++end;
        const auto count = static_cast<std::int64_t>(end - begin);
        const std::vector<double> values = read_elements(array, rows[begin] * stride, (count - 1) * stride + width);
        for (std::int64_t row = 0; row < count; ++row) {
            out = std::copy_n(values.begin() + row * stride, width, out);
        }
        begin = end;
    }
    return result;
}

std::vector<double> read_experts(const Array& array, const std::vector<std::int64_t>& experts) {
    const Tensor& tensor = array.tensor;
    const std::int64_t rows = tensor.shape[1];
    const std::int64_t columns = tensor.shape[2];
    std::vector<double> result;
    result.reserve(experts.size() * static_cast<std::size_t>(rows * columns));
    if (tensor.strides[2] == 1 && tensor.strides[1] == columns) {
        for (const std::int64_t e : experts) {
            const std::vector<double> matrix = read_elements(array, e * tensor.strides[0], rows * columns);
            result.insert(result.end(), matrix.begin(), matrix.end());
        }
        return result;
    }
    // The matrices are interleaved, so all of them come along.
    const std::size_t element = size_of(tensor.dtype);
    const std::vector<unsigned char> bytes = read_bytes(array, 0, tensor.numel());
    for (const std::int64_t e : experts) {
        for (std::int64_t row = 0; row < rows; ++row) {
            for (std::int64_t column = 0; column < columns; ++column) {
                const std::int64_t at = e * tensor.strides[0] + row * tensor.strides[1] + column * tensor.strides[2];
                double value = 0;
                decode(bytes.data() + static_cast<std::size_t>(at) * element, 1, tensor.dtype, &value);
                result.push_back(value);
            }
        }
    }
    return result;
}

std::vector<std::int64_t> read_integers(const Array& array) {
    const std::int64_t count = array.tensor.numel();
    const std::vector<unsigned char> bytes = read_bytes(array, 0, count);
    std::vector<std::int64_t> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = integer_at(bytes.data(), i, array.tensor.dtype);
    return values;
}

}  // namespace smlora::tool
