// A routing as the operations read it.
#pragma once

#include <smlora/operations.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <vector>

namespace smlora::cpu {

/// The flat entry of each sorted position, of sorted_scattered_idxs. Throws Error{invalid_argument} naming the argument
/// where they are no permutation of 0 .. M-1.
[[nodiscard]] std::vector<std::int64_t> entries_of(const char* argument, const Tensor& sorted_scattered_idxs);

class RoutedRows {
 public:
    /// Throws Error{invalid_argument} where the content is no routing: sorted_scattered_idxs no permutation of 0 ..
    /// M-1, expert_offsets descending or beyond M. Nothing else protects memory from a routing gone wrong.
    RoutedRows(const Problem& problem, const Routing& routing);

    [[nodiscard]] std::int64_t tokens() const { return size() / top_k_; }
    /// M: all entries, those left out included.
    [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }
    /// Entries of an expert: sorted positions from 0 to here.
    [[nodiscard]] std::int64_t routed() const { return offsets_.back(); }
    [[nodiscard]] std::int64_t experts() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
    /// Sorted positions of expert e: begin(e) to begin(e + 1).
    [[nodiscard]] std::int64_t begin(std::int64_t e) const { return offsets_[static_cast<std::size_t>(e)]; }
    /// The expert of a sorted position below routed().
    [[nodiscard]] std::int64_t expert(std::int64_t i) const;
    /// The flat entry t * top_k + j at sorted position i.
    [[nodiscard]] std::int64_t entry(std::int64_t i) const { return entries_[static_cast<std::size_t>(i)]; }
    /// The sorted position of flat entry f; at or beyond routed() for an entry that is left out.
    [[nodiscard]] std::int64_t position(std::int64_t f) const { return positions_[static_cast<std::size_t>(f)]; }

    /// For each sorted position the row of a tensor in this order.
    [[nodiscard]] std::vector<std::int64_t> rows_in(RowOrder order) const;
    /// What is indexed by flat entry, by sorted position.
    template <class Acc>
    [[nodiscard]] std::vector<Acc> sorted(const std::vector<Acc>& by_entry) const {
        std::vector<Acc> values;
        if (by_entry.empty()) return values;
        values.reserve(entries_.size());
        for (std::int64_t f : entries_) values.push_back(by_entry[static_cast<std::size_t>(f)]);
        return values;
    }

 private:
    std::int64_t top_k_;
    std::vector<std::int64_t> offsets_;  // [E + 1], exclusive
    std::vector<std::int64_t> entries_;  // [M]
    std::vector<std::int64_t> positions_;
};

}  // namespace smlora::cpu
