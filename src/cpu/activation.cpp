// activation and its gradient.
#include "cpu/elements.hpp"
#include "cpu/operations.hpp"

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

/// `da` and `dh` are given backward.
template <class Acc, class Args>
void activation_in(util::ThreadPool& threads, const Problem& problem, const Args& args, const Tensor& da,
                   const Tensor& dh) {
    const std::int64_t width = args.h.shape[1] / 2;
    const bool in_turns = args.layout == GateLayout::interleaved;
    threads.parallel_for(args.h.shape[0], [&](std::int64_t row) {
        std::vector<Acc> h(static_cast<std::size_t>(2 * width));
        std::vector<Acc> a(static_cast<std::size_t>(width));
        std::vector<Acc> gradient(static_cast<std::size_t>(width));
        load_row(row_at(args.h, row), problem.dtype, 2 * width, h.data());
        if (da.given()) load_row(row_at(da, row), problem.dtype, width, gradient.data());
        for (std::size_t c = 0; c < a.size(); ++c) {
            Acc& gate = h[in_turns ? 2 * c : c];
            Acc& up = h[in_turns ? 2 * c + 1 : a.size() + c];
            const Gated<Acc> result = gated<Acc>(args, gate, up);
            a[c] = result.value;
            gate = gradient[c] * result.d_gate;
            up = gradient[c] * result.d_up;
        }
        if (args.a.given()) store_row(a.data(), width, row_at(args.a, row), problem.dtype);
        if (dh.given()) store_row(h.data(), 2 * width, row_at(dh, row), problem.dtype);
    });
}

template <class Args>
void activation_any(util::ThreadPool& threads, const Problem& problem, const Args& args, const Tensor& da,
                    const Tensor& dh) {
    if (problem.dtype == DType::fp64) {
        activation_in<double>(threads, problem, args, da, dh);
    } else {
        activation_in<float>(threads, problem, args, da, dh);
    }
}

}  // namespace

void activation(util::ThreadPool& threads, const Problem& problem, const ActivationArgs& args) {
    activation_any(threads, problem, args, {}, {});
}

void activation_backward(util::ThreadPool& threads, const Problem& problem, const ActivationBackwardArgs& args) {
    activation_any(threads, problem, args, args.da, args.dh);
}

}  // namespace smlora::cpu
