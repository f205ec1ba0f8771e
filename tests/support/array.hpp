// A tensor of either backend with its host copy: strided, shifted off alignment if asked, between guard bytes that must
// stay as they are. Every byte that is no element is 0xFF, which is NaN in every floating-point type: reading it shows
// in the result, writing it shows in the guards.
#pragma once

#include "support/number.hpp"

#include <smlora/memory.hpp>
#include <smlora/tensor.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace smlora::test {

struct Layout {
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides = {};  ///< in elements; empty: row-major
    std::int64_t shift = 0;                  ///< elements between a 256-byte boundary and the first one
};

/// Guard bytes on either side. SMLORA_TEST_GUARD=0 leaves allocations exact, so that a sanitizer sees the first byte
/// beyond them.
inline std::size_t guard_bytes() {
    static const std::size_t bytes = [] {
        const char* text = std::getenv("SMLORA_TEST_GUARD");
        return text == nullptr ? std::size_t{256} : std::size_t{std::strtoull(text, nullptr, 10)} / 256 * 256;
    }();
    return bytes;
}

/// Calls work(begin, end) on parts of [0, count), on all cores when a part is worth a thread.
template <class Work>
void in_parallel(std::int64_t count, std::int64_t cost_of_one, const Work& work) {
    const std::int64_t cores = std::max<std::int64_t>(1, std::thread::hardware_concurrency());
    const std::int64_t most = std::max<std::int64_t>(1, std::min(cores, count));
    const std::int64_t parts = std::clamp<std::int64_t>(count * cost_of_one / 1'000'000, 1, most);
    std::vector<std::thread> threads;
    for (std::int64_t p = 1; p < parts; ++p) {
        threads.emplace_back([&work, p, parts, count] { work(count * p / parts, count * (p + 1) / parts); });
    }
    work(std::int64_t{0}, count / parts);
    for (std::thread& thread : threads) thread.join();
}

class Array {
 public:
    Array() = default;

    /// Poisoned: every byte is 0xFF.
    Array(const Engine& engine, DType dtype, Layout layout)
        : dtype_(dtype), layout_(std::move(layout)), on_host_(engine.backend() == Backend::cpu) {
        if (layout_.strides.empty()) {
            layout_.strides.resize(layout_.shape.size());
            std::int64_t stride = 1;
            for (std::size_t d = layout_.shape.size(); d-- > 0; stride *= layout_.shape[d]) layout_.strides[d] = stride;
        }
        for (std::int64_t extent : layout_.shape) numel_ *= extent;
        if (numel_ > 0) {
            span_ = 1;
            for (std::size_t d = 0; d < layout_.shape.size(); ++d) {
                span_ += (layout_.shape[d] - 1) * layout_.strides[d];
            }
        }
        first_ = guard_bytes() + index(layout_.shift) * size_of(dtype);
        memory_ = Buffer(engine, first_ + index(span_) * size_of(dtype) + guard_bytes());
        poison();
    }

    void poison() { memory_.fill(0xFF); }

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

    /// Brings what the operation wrote to where at(), row() and the checks look. The stream must have been waited for.
    void download() {
        if (!on_host_) memory_.copy_to_host(host_bytes(), memory_.bytes());
    }

    [[nodiscard]] bool given() const { return !layout_.shape.empty(); }
    [[nodiscard]] DType dtype() const { return dtype_; }
    [[nodiscard]] std::int64_t numel() const { return numel_; }
    [[nodiscard]] std::int64_t width() const { return layout_.shape.back(); }
    [[nodiscard]] std::int64_t rows() const { return width() == 0 ? 0 : numel_ / width(); }
    [[nodiscard]] const Layout& layout() const { return layout_; }
    [[nodiscard]] const Buffer& memory() const { return memory_; }

    [[nodiscard]] Tensor view() const {
        Tensor tensor;
        if (!given()) return tensor;
        tensor.data = static_cast<std::byte*>(memory_.data()) + first_;
        tensor.dtype = dtype_;
        tensor.ndim = static_cast<std::int32_t>(layout_.shape.size());
        std::copy(layout_.shape.begin(), layout_.shape.end(), tensor.shape.begin());
        std::copy(layout_.strides.begin(), layout_.strides.end(), tensor.strides.begin());
        return tensor;
    }

    /// Row r of the tensor seen as [rows(), width()].
    void row(std::int64_t r, double* target) const { decode_row(dtype_, row_bytes(r), width(), last_stride(), target); }
    [[nodiscard]] std::vector<double> row(std::int64_t r) const {
        std::vector<double> values(index(width()));
        row(r, values.data());
        return values;
    }
    /// The i-th element in row-major order.
    [[nodiscard]] double at(std::int64_t i) const {
        double value = 0;
        decode_row(dtype_, row_bytes(i / width()) + index(i % width() * last_stride()) * size_of(dtype_), 1, 1, &value);
        return value;
    }

    /// Whether two rows of arrays of one dtype have the same bits.
    [[nodiscard]] bool same_row(std::int64_t r, const Array& other, std::int64_t other_r) const {
        const std::size_t size = size_of(dtype_);
        for (std::int64_t c = 0; c < width(); ++c) {
            if (std::memcmp(row_bytes(r) + index(c * last_stride()) * size,
                            other.row_bytes(other_r) + index(c * other.last_stride()) * size, size) != 0) {
                return false;
            }
        }
        return true;
    }
    [[nodiscard]] bool same_bits(const Array& other) const {
        if (dtype_ != other.dtype_ || layout_.shape != other.layout_.shape) return false;
        for (std::int64_t r = 0; r < rows(); ++r) {
            if (!same_row(r, other, r)) return false;
        }
        return true;
    }

    /// Whether every byte that is no element is still 0xFF.
    [[nodiscard]] bool untouched_outside() const {
        const std::byte* host = host_bytes();
        const std::size_t size = size_of(dtype_);
        const auto poisoned = [host](std::size_t begin, std::size_t end) {
            return std::all_of(host + begin, host + end, [](std::byte b) { return b == std::byte{0xFF}; });
        };
        if (!poisoned(0, first_) || !poisoned(first_ + index(span_) * size, memory_.bytes())) return false;
        if (numel_ == span_) return true;
        std::vector<bool> element(index(span_), false);
        for (std::int64_t r = 0; r < rows(); ++r) {
            for (std::int64_t c = 0; c < width(); ++c) element[index(row_offset(r) + c * last_stride())] = true;
        }
        for (std::size_t i = 0; i < element.size(); ++i) {
            if (!element[i] && !poisoned(first_ + i * size, first_ + (i + 1) * size)) return false;
        }
        return true;
    }

 private:
    [[nodiscard]] std::int64_t last_stride() const { return layout_.strides.back(); }
    [[nodiscard]] std::int64_t row_offset(std::int64_t r) const {
        std::int64_t offset = 0;
        for (std::size_t d = layout_.shape.size() - 1; d-- > 0;) {
            offset += r % layout_.shape[d] * layout_.strides[d];
            r /= layout_.shape[d];
        }
        return offset;
    }
    [[nodiscard]] const std::byte* row_bytes(std::int64_t r) const {
        return host_bytes() + first_ + index(row_offset(r)) * size_of(dtype_);
    }
    [[nodiscard]] const std::byte* host_bytes() const {
        return on_host_ ? static_cast<const std::byte*>(memory_.data()) : copy_.data();
    }
    [[nodiscard]] std::byte* host_bytes() {
        if (on_host_) return static_cast<std::byte*>(memory_.data());
        copy_.resize(memory_.bytes());
        return copy_.data();
    }

    DType dtype_ = DType::bf16;
    Layout layout_;
    bool on_host_ = true;
    std::int64_t numel_ = 1;
    std::int64_t span_ = 0;
    std::size_t first_ = 0;  // bytes before the first element
    Buffer memory_;
    std::vector<std::byte> copy_;  // of the whole of memory_, where that is on a device
};

}  // namespace smlora::test
