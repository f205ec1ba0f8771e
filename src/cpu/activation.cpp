// activation and its gradient.
#include "cpu/elements.hpp"
#include "cpu/operations.hpp"
#include "cpu/routed_rows.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace smlora::cpu {
namespace {

template <class Acc>
struct Gated {
    Acc value;
    Acc d_gate;
    Acc d_up;
};

/// Of the sign's own exponential, which does not overflow: 1 / (1 + exp(-g)) is 0 below -88.7 in fp32, where g times it
/// is not yet.
template <class Acc>
Acc sigmoid_of(Acc g) {
    if (g >= 0) return 1 / (1 + std::exp(-g));
    const Acc e = std::exp(g);
    return e / (1 + e);
}

template <class Acc, class Args>
Gated<Acc> gated(const Args& args, Acc g, Acc u) {
    const auto product = [u](Acc value, Acc slope) { return Gated<Acc>{value * u, slope * u, value}; };
    switch (args.activation) {
        case Activation::swiglu: {
            const Acc sigmoid = sigmoid_of(g);
            return product(g * sigmoid, sigmoid * (1 + g * (1 - sigmoid)));
        }
        case Activation::geglu: {
            const Acc share = (1 + std::erf(g / std::numbers::sqrt2_v<Acc>)) / 2;
            const Acc density = std::exp(-g * g / 2) * std::numbers::inv_sqrtpi_v<Acc> / std::numbers::sqrt2_v<Acc>;
            return product(g * share, share + g * density);
        }
        case Activation::geglu_tanh: {
            const Acc root = std::numbers::sqrt2_v<Acc> * std::numbers::inv_sqrtpi_v<Acc>;  // sqrt(2 / pi)
            const Acc cubic = static_cast<Acc>(0.044715);
            const Acc t = std::tanh(root * (g + cubic * g * g * g));
            return product(g * (1 + t) / 2, (1 + t) / 2 + g * (1 - t * t) * root * (1 + 3 * cubic * g * g) / 2);
        }
        case Activation::reglu:
            return product(std::max<Acc>(g, 0), g > 0 ? Acc{1} : Acc{0});
        case Activation::swiglu_clamped:
            break;
    }
    const Acc alpha = static_cast<Acc>(args.alpha);
    const Acc limit = static_cast<Acc>(args.limit);
    const Acc gate = std::min(g, limit);
    const Acc up = std::clamp(u, -limit, limit) + 1;
    const Acc sigmoid = sigmoid_of(alpha * gate);
    const Acc slope = sigmoid * (1 + alpha * gate * (1 - sigmoid));
    return {gate * sigmoid * up, g > limit ? Acc{0} : slope * up, std::abs(u) > limit ? Acc{0} : gate * sigmoid};
}

/// The gates of grouped rows, and the gradients of these; nothing without gates.
template <class Acc>
class RowGates {
 public:
    RowGates() = default;
    explicit RowGates(const ActivationBackwardArgs& args)
        : dgates_(args.dgates),
          gates_(load_all<Acc>(args.gates)),
          entries_(args.gates.given() ? entries_of("sorted_scattered_idxs", args.sorted_scattered_idxs)
                                      : std::vector<std::int64_t>{}) {}

    [[nodiscard]] Acc of_row(std::int64_t row) const {
        return entries_.empty() ? Acc{1} : gates_[static_cast<std::size_t>(entry(row))];
    }

    /// <da, a> of a row.
    void store_gradient(std::int64_t row, const std::vector<Acc>& da, const std::vector<Acc>& a) const {
        if (entries_.empty()) return;
        double sum = 0;
        for (std::size_t c = 0; c < a.size(); ++c) sum += static_cast<double>(da[c]) * static_cast<double>(a[c]);
        const auto gradient = static_cast<Acc>(sum);
        void* const to = element_at(dgates_.data, dgates_.dtype, entry(row));
        store_row(&gradient, 1, to, dgates_.dtype);
    }

 private:
    [[nodiscard]] std::int64_t entry(std::int64_t row) const { return entries_[static_cast<std::size_t>(row)]; }

    Tensor dgates_;
    std::vector<Acc> gates_;
    std::vector<std::int64_t> entries_;
};

/// `da` and `dh` are given backward.
template <class Acc, class Args>
void activation_in(util::ThreadPool& threads, const Problem& problem, const Args& args, const Tensor& da,
                   const Tensor& dh, const RowGates<Acc>& gates) {
    const std::int64_t width = args.h.shape[1] / 2;
    const bool in_turns = args.layout == GateLayout::interleaved;
    threads.parallel_for(args.h.shape[0], [&](std::int64_t row) {
        std::vector<Acc> h(static_cast<std::size_t>(2 * width));
        std::vector<Acc> a(static_cast<std::size_t>(width));
        std::vector<Acc> gradient(static_cast<std::size_t>(width));
        load_row(row_at(args.h, row), problem.dtype, 2 * width, h.data());
        if (da.given()) load_row(row_at(da, row), problem.dtype, width, gradient.data());
        const Acc factor = gates.of_row(row);
        for (std::size_t c = 0; c < a.size(); ++c) {
            Acc& gate = h[in_turns ? 2 * c : c];
            Acc& up = h[in_turns ? 2 * c + 1 : a.size() + c];
            const Gated<Acc> result = gated<Acc>(args, gate, up);
            a[c] = result.value;
            gate = factor * gradient[c] * result.d_gate;
            up = factor * gradient[c] * result.d_up;
        }
        gates.store_gradient(row, gradient, a);
        if (args.a.given()) store_row(a.data(), width, row_at(args.a, row), problem.dtype);
        if (dh.given()) store_row(h.data(), 2 * width, row_at(dh, row), problem.dtype);
    });
}

template <class Acc>
void forward_in(util::ThreadPool& threads, const Problem& problem, const ActivationArgs& args) {
    activation_in<Acc>(threads, problem, args, {}, {}, {});
}

template <class Acc>
void backward_in(util::ThreadPool& threads, const Problem& problem, const ActivationBackwardArgs& args) {
    activation_in<Acc>(threads, problem, args, args.da, args.dh, RowGates<Acc>(args));
}

}  // namespace

void activation(util::ThreadPool& threads, const Problem& problem, const ActivationArgs& args) {
    if (problem.dtype == DType::fp64) {
        forward_in<double>(threads, problem, args);
    } else {
        forward_in<float>(threads, problem, args);
    }
}

void activation_backward(util::ThreadPool& threads, const Problem& problem, const ActivationBackwardArgs& args) {
    if (problem.dtype == DType::fp64) {
        backward_in<double>(threads, problem, args);
    } else {
        backward_in<float>(threads, problem, args);
    }
}

}  // namespace smlora::cpu
