// A tensor of either backend with its host copy: strided, shifted off alignment if asked, between guard bytes that must
// stay as they are. Every byte that is no element is 0xFF, which is NaN in every floating-point type: reading it shows
// in the result, writing it shows in the guards.
#pragma once

#include "workload/number.hpp"
#include "workload/parallel.hpp"
#include "workload/random.hpp"

#include <smlora/memory.hpp>
#include <smlora/tensor.hpp>

#include <cstring>
#include <vector>

namespace smlora::workload {

using Values = std::vector<double>;

struct Layout {
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides = {};  ///< in elements; empty: row-major
    std::int64_t shift = 0;                  ///< elements between a 256-byte boundary and the first one
};

class Array {
 public:
    Array() = default;

    /// Poisoned: every byte is 0xFF. SMLORA_TEST_GUARD=0 leaves the guard bytes away, so that a sanitizer sees the
    /// first access beyond the elements.
    Array(const Engine& engine, DType dtype, Layout layout);

    void poison();

    /// value(i) for the i-th element in row-major order, rounded to the dtype; rows for which skip(row) holds stay NaN.
    template <class Value, class Skip>
    void fill(const Value& value, const Skip& skip) {
        std::byte* const host = host_bytes();
        std::memset(host, 0xFF, memory_.bytes());
        with_codec(dtype_, [&](auto codec) {
            in_parallel(rows(), width(), [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t r = begin; r < end; ++r) {
                    if (skip(r)) continue;
                    std::byte* target = host + first_ + index(row_offset(r)) * size_of(dtype_);
                    const std::size_t step = index(layout_.strides.back()) * size_of(dtype_);
                    for (std::int64_t c = 0; c < width(); ++c, target += step) {
                        const typename decltype(codec)::Bits bits = codec.encode(value(r * width() + c));
                        std::memcpy(target, &bits, sizeof bits);
                    }
                }
            });
        });
        if (!on_host_) memory_.copy_from_host(host, memory_.bytes());
    }
    template <class Value>
    void fill(const Value& value) {
        fill(value, [](std::int64_t) { return false; });
    }
    /// Independent of each other, with mean 0.
    void fill_normal(const Random& random, double scale = 1);

    /// Brings what the operation wrote to where at(), row() and the checks look. The stream must have been waited for.
    void download();
    /// From now on reading goes to the device. For what is larger than the host likes to hold twice.
    void drop_host_copy() { copy_ = {}; }

    [[nodiscard]] bool given() const { return !layout_.shape.empty(); }
    [[nodiscard]] DType dtype() const { return dtype_; }
    [[nodiscard]] std::int64_t numel() const { return numel_; }
    [[nodiscard]] std::int64_t width() const { return layout_.shape.back(); }
    [[nodiscard]] std::int64_t rows() const { return width() == 0 ? 0 : numel_ / width(); }
    [[nodiscard]] const Layout& layout() const { return layout_; }
    [[nodiscard]] const Buffer& memory() const { return memory_; }
    [[nodiscard]] Tensor view() const;
    /// Bytes of memory() before the first element.
    [[nodiscard]] std::size_t first_byte() const { return first_; }

    /// Rows of the tensor seen as [rows(), width()], one after the other: of the host copy if there is one, else of the
    /// device.
    [[nodiscard]] Values read(std::int64_t first_row, std::int64_t count) const;
    [[nodiscard]] Values read(const std::vector<std::int64_t>& chosen) const;
    [[nodiscard]] Values row(std::int64_t r) const { return read(r, 1); }
    [[nodiscard]] Values values() const { return read(0, rows()); }

    // What follows looks at the host copy.

    void row(std::int64_t r, double* target) const { decode_row(dtype_, row_bytes(r), width(), last_stride(), target); }
    /// The i-th element in row-major order.
    [[nodiscard]] double at(std::int64_t i) const;
    /// Whether two rows of arrays of one dtype have the same bits.
    [[nodiscard]] bool same_row(std::int64_t r, const Array& other, std::int64_t other_r) const;
    [[nodiscard]] bool same_bits(const Array& other) const;
    /// Whether every byte that is no element is still 0xFF.
    [[nodiscard]] bool untouched_outside() const;

 private:
    [[nodiscard]] std::int64_t last_stride() const { return layout_.strides.back(); }
    [[nodiscard]] std::int64_t row_offset(std::int64_t r) const;
    [[nodiscard]] const std::byte* row_bytes(std::int64_t r) const {
        return host_bytes() + first_ + index(row_offset(r)) * size_of(dtype_);
    }
    [[nodiscard]] const std::byte* host_bytes() const {
        return on_host_ ? static_cast<const std::byte*>(memory_.data()) : copy_.data();
    }
    [[nodiscard]] std::byte* host_bytes();

    DType dtype_ = DType::bf16;
    Layout layout_;
    bool on_host_ = true;
    std::int64_t numel_ = 1;
    std::int64_t span_ = 0;
    std::size_t first_ = 0;  // bytes before the first element
    Buffer memory_;
    std::vector<std::byte> copy_;  // of the whole of memory_, where that is on a device
};

}  // namespace smlora::workload
