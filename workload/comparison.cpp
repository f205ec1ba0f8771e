#include "workload/comparison.hpp"

#include "util/counted.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace smlora::workload {
namespace {

// Below it a group's elements have no typical magnitude.
constexpr std::size_t smallest_group = 8;

double of_type(DType dtype, std::int64_t terms) {
    constexpr std::int64_t free_terms = 1024;
    switch (dtype) {
        case DType::bf16:
            return 4e-3;
        case DType::fp16:
            return 1e-3;
        case DType::fp32:
            return 1e-6 * std::sqrt(std::max(1.0, static_cast<double>(terms) / static_cast<double>(free_terms)));
        case DType::fp64:
            return 1e-12;
        default:  // whole numbers and bytes
            break;
    }
    return 0;
}

}  // namespace

double tolerance_of(DType dtype, const Sums& sums) {
    constexpr std::size_t handful = 64;
    return (sums.numbers < handful ? 3 : 1) * of_type(dtype, sums.terms);
}

void Comparison::add_group(std::span<const double> actual, std::span<const double> expected) {
    double squares = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        squares += expected[i] * expected[i];
        difference_ += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    }
    norm_ += squares;
    const double typical = std::sqrt(squares / static_cast<double>(std::max<std::size_t>(1, expected.size())));
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (expected[i] == 0 && typical == 0) {
            if (actual[i] != 0) ++nonzero_;  // NaN counts too
            continue;
        }
        const double error = std::abs(actual[i] - expected[i]) / (std::abs(expected[i]) + typical);
        const bool judged = expected.size() >= smallest_group || std::isnan(error);
        if (judged && !std::isnan(worst_) && !(error <= worst_)) worst_ = error;
    }
    count_ += expected.size();
}

std::string Comparison::complaint(double tolerance) const {
    if (nonzero_ > 0) return fmt::format("not zero as it should be: {}", util::counted(nonzero_, "element"));
    if (!(norm_error() <= tolerance)) {
        return fmt::format("relative error by norm {} over {} elements, tolerance {}", norm_error(), count_, tolerance);
    }
    if (!(worst_ <= single_factor * tolerance)) {
        return fmt::format("an element is off by {} of its magnitude, tolerance {}", worst_, single_factor * tolerance);
    }
    return "";
}

double norm_error(std::span<const double> actual, std::span<const double> expected) {
    Comparison comparison;
    comparison.add_group(actual, expected);
    return comparison.norm_error();
}

Difference compare(std::span<const double> got, std::span<const double> want, std::size_t row_width, double scale) {
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

}  // namespace smlora::workload
