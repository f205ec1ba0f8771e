#include "smlora_tune/comparison.hpp"

#include "smlora_tune/elements.hpp"
#include "smlora_tune/operands.hpp"
#include "util/hash.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string_view>

namespace smlora::tool {

Difference compare(const std::vector<double>& got, const std::vector<double>& want, std::size_t row_width,
                   double scale) {
    if (got.size() != want.size()) throw std::logic_error("compare: results of different size");
    constexpr double infinite = std::numeric_limits<double>::infinity();
    double error = 0;
    double norm = 0;
    double worst = 0;
    double rows = 0;
    for (std::size_t begin = 0; begin < want.size(); begin += row_width) {
        double row_error = 0;
        double row_norm = 0;
        for (std::size_t i = begin; i < begin + row_width; ++i) {
            row_error += (got[i] - want[i]) * (got[i] - want[i]);
            row_norm += want[i] * want[i];
        }
        if (!std::isfinite(row_error) || (row_norm == 0 && row_error != 0)) return {infinite, infinite};
        error += row_error;
        norm += row_norm;
        worst = std::max(worst, row_error);
        if (row_norm > 0) ++rows;
    }
    if (error == 0) return {};
    norm = std::max(norm, scale * scale * rows * static_cast<double>(row_width));
    return {std::sqrt(error / norm), std::sqrt(worst / (norm / rows))};
}

double tolerance_of(DType dtype, std::size_t numbers) {
    constexpr std::size_t handful = 64;
    const double factor = numbers < handful ? 3 : 1;
    switch (dtype) {
        case DType::bf16:
            return factor * 4e-3;
        case DType::fp16:
            return factor * 1e-3;
        case DType::fp32:
            return factor * 1e-5;
        case DType::fp64:
            return factor * 1e-12;
        case DType::int32:
        case DType::int64:
            break;
    }
    return 0;
}

Scan scan(const Array& array, std::size_t elements) {
    // 64 MiB at a time: outputs may be larger than the memory of the host.
    constexpr std::size_t piece = std::size_t{64} << 20U;
    const DType dtype = array.tensor.dtype;
    const std::size_t bytes = elements * size_of(dtype);
    const bool floating = dtype != DType::int32 && dtype != DType::int64;
    std::vector<unsigned char> host(std::min(piece, bytes));
    util::FieldHasher hasher;
    Scan result;
    for (std::size_t begin = 0; begin < bytes; begin += piece) {
        const std::size_t size = std::min(piece, bytes - begin);
        array.buffer.copy_to_host(host.data(), size, begin);
        hasher.add("bytes", {reinterpret_cast<const char*>(host.data()), size});
        if (floating) result.non_finite += count_non_finite(host.data(), size / size_of(dtype), dtype);
    }
    result.hash = hasher.hex();
    return result;
}

}  // namespace smlora::tool
