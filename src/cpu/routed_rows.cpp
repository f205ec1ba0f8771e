#include "cpu/routed_rows.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace smlora::cpu {
namespace {

std::vector<std::int64_t> read(const Tensor& tensor) {
    std::vector<std::int64_t> values;
    const std::int64_t count = tensor.numel();
    if (tensor.dtype == DType::int32) {
        const auto* data = static_cast<const std::int32_t*>(tensor.data);
        values.assign(data, data + count);
    } else {
        const auto* data = static_cast<const std::int64_t*>(tensor.data);
        values.assign(data, data + count);
    }
    return values;
}

/// The sorted position of each flat entry.
std::vector<std::int64_t> positions_of(const char* argument, const std::vector<std::int64_t>& entries) {
    const auto count = static_cast<std::int64_t>(entries.size());
    std::vector<std::int64_t> positions(entries.size(), -1);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const std::int64_t f = entries[i];
        if (f < 0 || f >= count) {
            throw Error(ErrorCode::invalid_argument,
                        fmt::format("{}[{}]: expected 0 to {}, got {}", argument, i, count - 1, f));
        }
        std::int64_t& position = positions[static_cast<std::size_t>(f)];
        if (position >= 0) {
            throw Error(ErrorCode::invalid_argument,
                        fmt::format("{}: expected every entry once, got {} at {} and {}", argument, f, position, i));
        }
        position = static_cast<std::int64_t>(i);
    }
    return positions;
}

}  // namespace

std::vector<std::int64_t> entries_of(const char* argument, const Tensor& sorted_scattered_idxs) {
    std::vector<std::int64_t> entries = read(sorted_scattered_idxs);
    positions_of(argument, entries);
    return entries;
}

RoutedRows::RoutedRows(const Problem& problem, const Routing& routing)
    : top_k_(problem.top_k), entries_(read(routing.sorted_scattered_idxs)) {
    const std::vector<std::int64_t> ends = read(routing.expert_offsets);
    offsets_.reserve(ends.size() + 1);
    offsets_.push_back(0);
    for (std::int64_t end : ends) {
        if (end < offsets_.back() || end > size()) {
            throw Error(ErrorCode::invalid_argument,
                        fmt::format("routing.expert_offsets[{}]: expected {} to {}, got {}", offsets_.size() - 1,
                                    offsets_.back(), size(), end));
        }
        offsets_.push_back(end);
    }
    positions_ = positions_of("routing.sorted_scattered_idxs", entries_);
}

std::int64_t RoutedRows::expert(std::int64_t i) const {
    return std::upper_bound(offsets_.begin(), offsets_.end(), i) - offsets_.begin() - 1;
}

std::vector<std::int64_t> RoutedRows::rows_in(RowOrder order) const {
    std::vector<std::int64_t> rows = entries_;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (order == RowOrder::token) rows[i] /= top_k_;
        if (order == RowOrder::grouped) rows[i] = static_cast<std::int64_t>(i);
    }
    return rows;
}

}  // namespace smlora::cpu
