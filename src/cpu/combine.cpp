// combine and its gradients.
#include "cpu/elements.hpp"
#include "cpu/operations.hpp"

#include <vector>

namespace smlora::cpu {
namespace {

template <class Acc>
Acc gate_of(const std::vector<Acc>& gates, std::int64_t f) {
    return gates.empty() ? Acc{1} : gates[static_cast<std::size_t>(f)];
}

template <class Acc>
void combine_in(util::ThreadPool& threads, const Problem& problem, const CombineArgs& args) {
    const std::vector<Acc> gates = load_all<Acc>(args.gates);
    const std::int64_t width = args.out.shape[1];
    threads.parallel_for(args.out.shape[0], [&](std::int64_t t) {
        std::vector<Acc> sum(static_cast<std::size_t>(width));
        std::vector<Acc> line(static_cast<std::size_t>(width));
        for (std::int64_t f = t * problem.top_k; f < (t + 1) * problem.top_k; ++f) {
            load_row(row_at(args.y, f), problem.dtype, width, line.data());
            const Acc gate = gate_of(gates, f);
            for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += gate * line[c];
        }
        store_row(sum.data(), width, row_at(args.out, t), problem.dtype);
    });
}

template <class Acc>
void combine_backward_in(util::ThreadPool& threads, const Problem& problem, const CombineBackwardArgs& args) {
    const std::vector<Acc> gates = load_all<Acc>(args.gates);
    const std::int64_t width = args.dout.shape[1];
    threads.parallel_for(args.dout.shape[0], [&](std::int64_t t) {
        std::vector<Acc> dout(static_cast<std::size_t>(width));
        std::vector<Acc> line(static_cast<std::size_t>(width));
        load_row(row_at(args.dout, t), problem.dtype, width, dout.data());
        for (std::int64_t f = t * problem.top_k; f < (t + 1) * problem.top_k; ++f) {
            if (args.dy.given()) {
                const Acc gate = gate_of(gates, f);
                for (std::size_t c = 0; c < line.size(); ++c) line[c] = gate * dout[c];
                store_row(line.data(), width, row_at(args.dy, f), problem.dtype);
            }
            if (args.dgates.given()) {
                load_row(row_at(args.y, f), problem.dtype, width, line.data());
                double sum = 0;
                for (std::size_t c = 0; c < line.size(); ++c) {
                    sum += static_cast<double>(dout[c]) * static_cast<double>(line[c]);
                }
                const auto gradient = static_cast<Acc>(sum);
                store_row(&gradient, 1, element_at(args.dgates.data, args.dgates.dtype, f), args.dgates.dtype);
            }
        }
    });
}

}  // namespace

void combine(util::ThreadPool& threads, const Problem& problem, const CombineArgs& args) {
    if (problem.dtype == DType::fp64) {
        combine_in<double>(threads, problem, args);
    } else {
        combine_in<float>(threads, problem, args);
    }
}

void combine_backward(util::ThreadPool& threads, const Problem& problem, const CombineBackwardArgs& args) {
    if (problem.dtype == DType::fp64) {
        combine_backward_in<double>(threads, problem, args);
    } else {
        combine_backward_in<float>(threads, problem, args);
    }
}

}  // namespace smlora::cpu
