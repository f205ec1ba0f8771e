// A block of a product, summed up in the manner of Goto: packed panels, a register block that fits the instruction set.
#pragma once

#include "cpu/isa/kernels.hpp"

#include <cstdint>
#include <memory>
#include <new>

namespace smlora::cpu {

/// Uninitialised memory for packed panels, aligned to a cache line and to the longest vector.
template <class Acc>
class AlignedArray {
 public:
    explicit AlignedArray(std::int64_t count)
        : data_(static_cast<Acc*>(::operator new(static_cast<std::size_t>(count) * sizeof(Acc), alignment))) {}
    [[nodiscard]] Acc* data() const { return data_.get(); }

 private:
    static constexpr std::align_val_t alignment{64};
    struct Free {
        void operator()(Acc* pointer) const { ::operator delete(pointer, alignment); }
    };
    std::unique_ptr<Acc, Free> data_;
};

/// The largest tile: in fp32 its sums and its packed left factor are 340 KiB, in fp64 twice that, for a second-level
/// cache of 512 KiB to 1 MiB.
inline constexpr std::int64_t tile_rows = 192;
inline constexpr std::int64_t tile_columns = 256;

/// sum over k of left(row, k) right(k, column) for a block of rows and columns. Each element is summed in the order of
/// k, in blocks that depend on k alone: its bits are the same wherever it lies in whatever tile.
template <class Acc>
class Tile {
 public:
    /// Zero; rows <= tile_rows, columns <= tile_columns.
    Tile(const Kernels<Acc>& kernels, std::int64_t rows, std::int64_t columns);

    /// Where in a factor a product begins.
    struct Start {
        std::int64_t outer;
        std::int64_t k;
    };

    /// Adds the product over `depth` of the rows and the columns from their starts on. One product may be added in
    /// pieces of a multiple of depth_step: the bits are the same.
    void add(const Factor<Acc>& left, Start row, const Factor<Acc>& right, Start column, std::int64_t depth);

    /// A right panel of this many k leaves room in a first-level cache of 32 KiB for the left panel that passes by.
    static constexpr std::int64_t depth_step = 192;

    [[nodiscard]] const Acc* row(std::int64_t i) const { return sums_.data() + i * stride_; }

 private:
    const Kernels<Acc>& kernels_;
    std::int64_t rows_;
    std::int64_t columns_;
    std::int64_t padded_rows_;
    std::int64_t stride_;
    AlignedArray<Acc> sums_;
    AlignedArray<Acc> left_panels_;
    AlignedArray<Acc> right_panel_;
};

}  // namespace smlora::cpu
