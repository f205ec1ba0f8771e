#include "workload/array.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace smlora::workload {
namespace {

std::size_t guard_bytes() {
    static const std::size_t bytes = [] {
        const char* text = std::getenv("SMLORA_TEST_GUARD");
        return text == nullptr ? std::size_t{256} : std::size_t{std::strtoull(text, nullptr, 10)} / 256 * 256;
    }();
    return bytes;
}

}  // namespace

Array::Array(const Engine& engine, DType dtype, Layout layout)
    : dtype_(dtype), layout_(std::move(layout)), on_host_(engine.backend() == Backend::cpu) {
    if (layout_.strides.empty()) {
        layout_.strides.resize(layout_.shape.size());
        std::int64_t stride = 1;
        for (std::size_t d = layout_.shape.size(); d-- > 0; stride *= layout_.shape[d]) layout_.strides[d] = stride;
    }
    for (const std::int64_t extent : layout_.shape) numel_ *= extent;
    if (numel_ > 0) {
        span_ = 1;
        for (std::size_t d = 0; d < layout_.shape.size(); ++d) span_ += (layout_.shape[d] - 1) * layout_.strides[d];
    }
    first_ = guard_bytes() + index(layout_.shift) * size_of(dtype);
    memory_ = Buffer(engine, first_ + index(span_) * size_of(dtype) + guard_bytes());
    poison();
}

void Array::poison() {
    memory_.fill(0xFF);
    drop_host_copy();
}

void Array::fill_normal(const Random& random, double scale) {
    fill([&](std::int64_t i) { return scale * random.normal(static_cast<std::uint64_t>(i)); });
}

void Array::download() {
    if (!on_host_) memory_.copy_to_host(host_bytes(), memory_.bytes());
}

Tensor Array::view() const {
    Tensor tensor;
    if (!given()) return tensor;
    tensor.data = static_cast<std::byte*>(memory_.data()) + first_;
    tensor.dtype = dtype_;
    tensor.ndim = static_cast<std::int32_t>(layout_.shape.size());
    std::copy(layout_.shape.begin(), layout_.shape.end(), tensor.shape.begin());
    std::copy(layout_.strides.begin(), layout_.strides.end(), tensor.strides.begin());
    return tensor;
}

Values Array::read(std::int64_t first_row, std::int64_t count) const {
    Values values(index(count * width()));
    if (values.empty()) return values;
    const std::size_t size = size_of(dtype_);
    // The bytes from the lowest element that is wanted to the highest.
    std::int64_t lowest = row_offset(first_row);
    std::int64_t highest = lowest;
    for (std::int64_t r = first_row; r < first_row + count; ++r) {
        lowest = std::min(lowest, row_offset(r));
        highest = std::max(highest, row_offset(r));
    }
    const std::byte* elements = host_bytes() + first_ + index(lowest) * size;
    std::vector<std::byte> copy;
    if (!on_host_ && copy_.empty()) {
        copy.resize(index(highest - lowest + (width() - 1) * last_stride() + 1) * size);
        memory_.copy_to_host(copy.data(), copy.size(), first_ + index(lowest) * size);
        elements = copy.data();
    }
    for (std::int64_t r = 0; r < count; ++r) {
        decode_row(dtype_, elements + index(row_offset(first_row + r) - lowest) * size, width(), last_stride(),
                   values.data() + r * width());
    }
    return values;
}

Values Array::read(const std::vector<std::int64_t>& chosen) const {
    Values values;
    values.reserve(chosen.size() * index(width()));
    for (const std::int64_t r : chosen) {
        const Values one = row(r);
        values.insert(values.end(), one.begin(), one.end());
    }
    return values;
}

double Array::at(std::int64_t i) const {
    double value = 0;
    decode_row(dtype_, row_bytes(i / width()) + index(i % width() * last_stride()) * size_of(dtype_), 1, 1, &value);
    return value;
}

bool Array::same_row(std::int64_t r, const Array& other, std::int64_t other_r) const {
    const std::size_t size = size_of(dtype_);
    for (std::int64_t c = 0; c < width(); ++c) {
        if (std::memcmp(row_bytes(r) + index(c * last_stride()) * size,
                        other.row_bytes(other_r) + index(c * other.last_stride()) * size, size) != 0) {
            return false;
        }
    }
    return true;
}

bool Array::same_bits(const Array& other) const {
    if (dtype_ != other.dtype_ || layout_.shape != other.layout_.shape) return false;
    for (std::int64_t r = 0; r < rows(); ++r) {
        if (!same_row(r, other, r)) return false;
    }
    return true;
}

bool Array::untouched_outside() const {
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

std::int64_t Array::row_offset(std::int64_t r) const {
    std::int64_t offset = 0;
    for (std::size_t d = layout_.shape.size() - 1; d-- > 0;) {
        offset += r % layout_.shape[d] * layout_.strides[d];
        r /= layout_.shape[d];
    }
    return offset;
}

std::byte* Array::host_bytes() {
    if (on_host_) return static_cast<std::byte*>(memory_.data());
    copy_.resize(memory_.bytes());
    return copy_.data();
}

}  // namespace smlora::workload
