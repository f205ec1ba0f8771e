#include "check/overlap.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>

namespace smlora::check {
namespace {

struct Step {
    std::int64_t stride;  // bytes
    std::int64_t extent;
};

/// The sums of x_k * stride_k, 0 <= x_k < extent_k.
class Sums {
 public:
    void add(Step step) {
        std::size_t i = count_;
        while (i > 0 && steps_[i - 1].stride > step.stride) --i;
        if (i > 0 && steps_[i - 1].stride == step.stride) {
            steps_[i - 1].extent += step.extent - 1;
            return;
        }
        for (std::size_t j = count_++; j > i; --j) steps_[j] = steps_[j - 1];
        steps_[i] = step;
    }

    [[nodiscard]] std::span<const Step> ascending() const { return {steps_.data(), count_}; }

    /// Whether a sum lies in low..high. Branch and bound from the largest stride on: slices of one array have strides
    /// in common, so that few values of each x are left to try.
    bool reach(std::int64_t low, std::int64_t high) {
        for (std::size_t k = 0; k < count_; ++k) {
            largest_[k + 1] = largest_[k] + steps_[k].stride * (steps_[k].extent - 1);
            divisor_[k + 1] = std::gcd(divisor_[k], steps_[k].stride);
        }
        return reach_with(count_, low, high);
    }

 private:
    static constexpr std::size_t capacity = 2 * std::size_t{Tensor::max_ndim};

    /// With the first k steps.
    bool reach_with(std::size_t k, std::int64_t low, std::int64_t high) {
        if (high < 0 || low > largest_[k]) return false;
        if (low <= 0) return true;  // every x is 0
        if (high / divisor_[k] * divisor_[k] < low || budget_-- <= 0) return false;
        const auto [stride, extent] = steps_[k - 1];
        const std::int64_t least = std::max<std::int64_t>(0, low - largest_[k - 1] + stride - 1) / stride;
        const std::int64_t most = std::min(extent - 1, high / stride);
        for (std::int64_t x = least; x <= most && budget_ > 0; ++x) {
            if (reach_with(k - 1, low - stride * x, high - stride * x)) return true;
        }
        return false;
    }

    std::array<Step, capacity> steps_{};  // by ascending stride, which differ
    std::size_t count_ = 0;
    std::array<std::int64_t, capacity + 1> largest_{};  // sum of the first k steps
    std::array<std::int64_t, capacity + 1> divisor_{};  // common to the first k strides
    std::int64_t budget_ = 1 << 16;                     // about a millisecond
};

/// The bytes of an operand: runs of `length` bytes without gaps, one at each sum of the steps.
struct Runs {
    explicit Runs(const Operand& operand) : length(static_cast<std::int64_t>(operand.end - operand.begin)) {
        if (operand.tensor == nullptr) return;
        const Tensor& tensor = *operand.tensor;
        length = static_cast<std::int64_t>(size_of(tensor.dtype));
        Sums sums;
        for (std::size_t d = 0; d < static_cast<std::size_t>(tensor.ndim); ++d) {
            if (tensor.shape[d] > 1) sums.add({tensor.strides[d] * length, tensor.shape[d]});
        }
        for (const Step& step : sums.ascending()) {
            if (count == 0 && step.stride <= length) {
                length += step.stride * (step.extent - 1);
            } else {
                steps[count++] = step;
            }
        }
    }

    std::int64_t length;
    std::array<Step, Tensor::max_ndim> steps{};
    std::size_t count = 0;
};

[[noreturn, gnu::cold, gnu::noinline]] void fail_overlap(const Operand& output, const Operand& other) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{}: expected memory that {} does not use, got {:#x} to {:#x}, where {} is {:#x} to {:#x}",
                    output.argument, other.argument, output.begin, output.end, other.argument, other.begin, other.end));
}

bool spans_meet(const Operand& a, const Operand& b) { return a.begin < b.end && b.begin < a.end; }

void check_pair(const Operand& output, const Operand& other) {
    if (spans_meet(output, other) && overlap(output, other)) fail_overlap(output, other);
}

void check_inputs(std::initializer_list<Operand> outputs, std::initializer_list<Operand> inputs) {
    for (const Operand& output : outputs) {
        for (const Operand& input : inputs) check_pair(output, input);
    }
}

}  // namespace

Operand::Operand(const char* argument_, const Tensor& tensor_) noexcept : argument(argument_), tensor(&tensor_) {
    std::int64_t last = 0;
    for (std::size_t d = 0; d < static_cast<std::size_t>(tensor_.ndim); ++d) {
        if (tensor_.shape[d] == 0) return;
        last += tensor_.strides[d] * (tensor_.shape[d] - 1);
    }
    if (!tensor_.given()) return;
    begin = reinterpret_cast<std::uintptr_t>(tensor_.data);
    end = begin + static_cast<std::uintptr_t>(last + 1) * size_of(tensor_.dtype);
}

Operand::Operand(const Workspace& workspace) noexcept : argument("workspace") {
    if (workspace.data == nullptr) return;
    begin = reinterpret_cast<std::uintptr_t>(workspace.data);
    end = begin + workspace.bytes;
}

bool overlap(const Operand& a, const Operand& b) {
    if (!spans_meet(a, b)) return false;
    // No machine has that much memory, and the differences below would overflow.
    constexpr std::uintptr_t largest = std::numeric_limits<std::int64_t>::max() / 4;
    if (a.end - a.begin > largest || b.end - b.begin > largest) return true;

    // A run of a, at a.begin + sum s_i x_i, meets a run of b, at b.begin + sum t_j y_j, if it begins less than its own
    // length before or less than the other's length after it. Counting the y backwards makes every term positive.
    const Runs of_a(a);
    const Runs of_b(b);
    Sums sums;
    auto distance = static_cast<std::int64_t>(b.begin - a.begin);
    for (std::size_t i = 0; i < of_a.count; ++i) sums.add(of_a.steps[i]);
    for (std::size_t j = 0; j < of_b.count; ++j) {
        sums.add(of_b.steps[j]);
        distance += of_b.steps[j].stride * (of_b.steps[j].extent - 1);
    }
    return sums.reach(distance - of_a.length + 1, distance + of_b.length - 1);
}

void check_apart(std::initializer_list<Operand> outputs, std::initializer_list<Operand> inputs) {
    for (const Operand* output = outputs.begin(); output != outputs.end(); ++output) {
        for (const Operand* other = output + 1; other != outputs.end(); ++other) check_pair(*output, *other);
    }
    check_inputs(outputs, inputs);
}

void check_apart(std::initializer_list<Operand> outputs, const Routing& routing,
                 std::initializer_list<Operand> inputs) {
    check_apart(outputs, inputs);
    check_inputs(outputs, {{"routing.sorted_expert_idxs", routing.sorted_expert_idxs},
                           {"routing.sorted_scattered_idxs", routing.sorted_scattered_idxs},
                           {"routing.expert_offsets", routing.expert_offsets}});
}

void check_apart(std::initializer_list<Operand> outputs, const Weight& W) {
    if (W.encoding == Encoding::plain) return check_inputs(outputs, {{"W", W.codes}});
    check_inputs(outputs, {{"W.codes", W.codes},
                           {"W.scales", W.scales},
                           {"W.table", W.table},
                           {"W.double_quantization.scales", W.double_quantization.scales},
                           {"W.double_quantization.table", W.double_quantization.table},
                           {"W.double_quantization.offset", W.double_quantization.offset},
                           {"W.global_scales", W.global_scales}});
}

}  // namespace smlora::check
