#include "smlora_tune/reference.hpp"

#include "smlora_tune/host_rows.hpp"

#include <algorithm>
#include <numeric>

namespace smlora::tool {
namespace {

// Bytes of fp64 copies that are held at once.
constexpr std::int64_t memory_bound = std::int64_t{512} << 20;

using Indices = std::vector<std::int64_t>;
using Values = std::vector<double>;

void add(Values& sum, const Values& part) {
    if (sum.empty()) sum.resize(part.size());
    std::transform(sum.begin(), sum.end(), part.begin(), sum.begin(), std::plus<>());
}

Tensor view(Values& values, std::initializer_list<std::int64_t> shape) { return {values.data(), DType::fp64, shape}; }

/// The rows of some tokens with the entries of some experts; the entries of all other experts are left out. Every
/// operation is a sum over entries, so the results of disjoint sets of experts or tokens add up.
class Part {
 public:
    const std::int64_t T;
    const std::int64_t M;
    Problem p;

    Part(const Operands& operands, const HostRouting& routing, const Indices& tokens)
        : T(static_cast<std::int64_t>(tokens.size())),
          M(T * operands.problem.top_k),
          p(reference_problem(operands.problem, 0)),
          operands_(operands),
          tokens_(tokens) {
        const Problem& original = operands.problem;
        x = read_rows(operands.x, p.K, p.K, rows_of_tokens(original.x_rows, p.top_k, routing, tokens));
        dy = read_rows(operands.dy, p.N, p.N, rows_of_tokens(original.y_rows, p.top_k, routing, tokens));
        if (p.gates) gates = read_rows(operands.gates, p.top_k, p.top_k, tokens);
    }

    /// Takes these experts from now on and routes.
    void select(const Engine& cpu, const Indices& experts) {
        p.E = static_cast<std::int64_t>(experts.size());
        Indices number(static_cast<std::size_t>(operands_.problem.E), -1);
        for (std::size_t i = 0; i < experts.size(); ++i) {
            number[static_cast<std::size_t>(experts[i])] = static_cast<std::int64_t>(i);
        }
        top_idx.clear();
        for (const std::int64_t t : tokens_) {
            for (std::int64_t j = 0; j < p.top_k; ++j) {
                const std::int64_t e = operands_.top_idx_host[static_cast<std::size_t>(t * p.top_k + j)];
                top_idx.push_back(e < 0 ? -1 : number[static_cast<std::size_t>(e)]);
            }
        }
        if (p.R > 0) {
            A = read_experts(operands_.A, experts);
            B = read_experts(operands_.B, experts);
        }
        sorted_expert_idxs.resize(static_cast<std::size_t>(M));
        sorted_scattered_idxs.resize(static_cast<std::size_t>(M));
        expert_offsets.resize(experts.size());
        RouteArgs args;
        args.top_idx = {top_idx.data(), DType::int64, {T, p.top_k}};
        args.routing = routing();
        route(cpu, {}, p, args);
    }

    [[nodiscard]] Routing routing() {
        return {{sorted_expert_idxs.data(), DType::int64, {M}},
                {sorted_scattered_idxs.data(), DType::int64, {M}},
                {expert_offsets.data(), DType::int64, {p.E}}};
    }

    [[nodiscard]] Tensor x_view() { return view(x, {p.x_rows == RowOrder::token ? T : M, p.K}); }
    [[nodiscard]] Tensor dy_view() { return view(dy, {p.y_rows == RowOrder::token ? T : M, p.N}); }
    [[nodiscard]] Tensor A_view() { return p.R > 0 ? view(A, {p.E, p.R, p.K}) : Tensor(); }
    [[nodiscard]] Tensor B_view() { return p.R > 0 ? view(B, {p.E, p.N, p.R}) : Tensor(); }
    [[nodiscard]] Tensor gates_view() { return p.gates ? view(gates, {T, p.top_k}) : Tensor(); }

    /// A matrix [M, R] of grouped rows, in the order of the flat entries.
    [[nodiscard]] Values by_entry(const Values& grouped) const {
        const auto stride = static_cast<std::size_t>(padded_rank(p));
        const auto rank = static_cast<std::size_t>(p.R);
        Values result(static_cast<std::size_t>(M) * rank);
        const auto rows = static_cast<std::size_t>(expert_offsets.empty() ? 0 : expert_offsets.back());
        for (std::size_t i = 0; i < rows; ++i) {
            const auto f = static_cast<std::size_t>(sorted_scattered_idxs[i]);
            std::copy_n(grouped.begin() + static_cast<std::ptrdiff_t>(i * stride), rank,
                        result.begin() + static_cast<std::ptrdiff_t>(f * rank));
        }
        return result;
    }

 private:
    const Operands& operands_;
    const Indices& tokens_;
    Values x, dy, gates, A, B;
    Indices top_idx, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets;
};

void add_rows(const Engine& cpu, const Operands& operands, Part& part, const Indices& experts, ReferenceRows& sum) {
    part.select(cpu, experts);
    const Problem& p = part.p;
    Values W = read_experts(operands.W, experts);
    Values bias = p.bias ? read_rows(operands.bias, p.N, p.N, experts) : Values();
    Values y(static_cast<std::size_t>((p.y_rows == RowOrder::token ? part.T : part.M) * p.N));
    Values dx(static_cast<std::size_t>((p.x_rows == RowOrder::token ? part.T : part.M) * p.K));
    Values dgates(static_cast<std::size_t>(part.T * p.top_k));
    Values grouped(static_cast<std::size_t>(part.M * padded_rank(p)));
    const Tensor grouped_view(grouped.data(), DType::fp64, {part.M, p.R}, {padded_rank(p), 1});

    ForwardArgs args;
    args.x = part.x_view();
    args.W = p.weight_layout == WeightLayout::ekn ? view(W, {p.E, p.K, p.N}) : view(W, {p.E, p.N, p.K});
    args.A = part.A_view();
    args.B = part.B_view();
    if (p.bias) args.bias = view(bias, {p.E, p.N});
    args.gates = part.gates_view();
    args.routing = part.routing();
    args.scaling = Operands::scaling;
    args.y = view(y, {p.y_rows == RowOrder::token ? part.T : part.M, p.N});
    scatter2scatter(cpu, {}, p, args);
    add(sum.base, y);
    if (p.R > 0) args.xa = grouped_view;
    forward(cpu, {}, p, args);
    add(sum.y, y);
    if (p.R > 0) add(sum.xa, part.by_entry(grouped));

    BackwardInputArgs back;
    back.dy = part.dy_view();
    back.W = args.W;
    back.A = args.A;
    back.B = args.B;
    back.gates = args.gates;
    back.routing = args.routing;
    back.scaling = Operands::scaling;
    back.dx = view(dx, {p.x_rows == RowOrder::token ? part.T : part.M, p.K});
    if (p.R > 0) back.yb = grouped_view;
    if (p.gates) {
        back.dgates = view(dgates, {part.T, p.top_k});
        back.x = args.x;
        back.bias = args.bias;
    }
    backward_input(cpu, {}, p, back);
    add(sum.dx, dx);
    if (p.R > 0) add(sum.yb, part.by_entry(grouped));
    if (p.gates) add(sum.dgates, dgates);
}

/// Consecutive pieces of at most `size` elements.
std::vector<Indices> pieces(const Indices& all, std::int64_t size) {
    std::vector<Indices> result;
    const auto step = static_cast<std::size_t>(std::max<std::int64_t>(1, size));
    for (std::size_t begin = 0; begin < all.size(); begin += step) {
        const std::size_t end = std::min(all.size(), begin + step);
        result.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(begin),
                            all.begin() + static_cast<std::ptrdiff_t>(end));
    }
    return result;
}

}  // namespace

HostRouting host_routing(const std::vector<std::int64_t>& top_idx, std::int64_t E) {
    HostRouting routing;
    const auto expert = [&](std::int64_t f) {
        const std::int64_t e = top_idx[static_cast<std::size_t>(f)];
        return e < 0 ? E : e;
    };
    routing.sorted_scattered_idxs.resize(top_idx.size());
    std::iota(routing.sorted_scattered_idxs.begin(), routing.sorted_scattered_idxs.end(), 0);
    std::stable_sort(routing.sorted_scattered_idxs.begin(), routing.sorted_scattered_idxs.end(),
                     [&](std::int64_t a, std::int64_t b) { return expert(a) < expert(b); });
    routing.positions.resize(top_idx.size());
    routing.expert_offsets.assign(static_cast<std::size_t>(E), 0);
    for (std::size_t i = 0; i < top_idx.size(); ++i) {
        const std::int64_t f = routing.sorted_scattered_idxs[i];
        routing.sorted_expert_idxs.push_back(expert(f));
        routing.positions[static_cast<std::size_t>(f)] = static_cast<std::int64_t>(i);
        if (expert(f) < E) ++routing.expert_offsets[static_cast<std::size_t>(expert(f))];
    }
    std::partial_sum(routing.expert_offsets.begin(), routing.expert_offsets.end(), routing.expert_offsets.begin());
    return routing;
}

std::vector<std::int64_t> rows_of_tokens(RowOrder order, std::int64_t top_k, const HostRouting& routing,
                                         const std::vector<std::int64_t>& tokens) {
    if (order == RowOrder::token) return tokens;
    Indices rows;
    for (const std::int64_t t : tokens) {
        for (std::int64_t f = t * top_k; f < (t + 1) * top_k; ++f) {
            rows.push_back(order == RowOrder::scattered ? f : routing.positions[static_cast<std::size_t>(f)]);
        }
    }
    return rows;
}

Problem reference_problem(const Problem& problem, std::int64_t experts) {
    Problem p = problem;
    p.E = experts;
    p.dtype = p.adapter_dtype = p.gate_dtype = DType::fp64;
    p.index_dtype = DType::int64;
    if (p.x_rows == RowOrder::grouped) p.x_rows = RowOrder::scattered;
    if (p.y_rows == RowOrder::grouped) p.y_rows = RowOrder::scattered;
    return p;
}

ReferenceRows reference_rows(const Engine& cpu, const Operands& operands, const HostRouting& routing,
                             const std::vector<std::int64_t>& tokens) {
    ReferenceRows sum;
    const Problem& p = operands.problem;
    Part part(operands, routing, tokens);
    Indices active;
    for (const std::int64_t t : tokens) {
        for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) {
            const std::int64_t e = operands.top_idx_host[static_cast<std::size_t>(f)];
            if (e >= 0) active.push_back(e);
        }
    }
    std::sort(active.begin(), active.end());
    active.erase(std::unique(active.begin(), active.end()), active.end());
    // Without any, one expert without rows still gives results of the right size, all zero.
    if (active.empty()) active.push_back(0);
    const std::int64_t at_once = memory_bound / (p.K * p.N * static_cast<std::int64_t>(sizeof(double)));
    for (const Indices& experts : pieces(active, at_once)) add_rows(cpu, operands, part, experts, sum);
    return sum;
}

ReferenceGradients reference_gradients(const Engine& cpu, const Operands& operands, const HostRouting& routing,
                                       const std::vector<std::int64_t>& experts) {
    const Problem& p = operands.problem;
    std::vector<bool> chosen(static_cast<std::size_t>(p.E));
    for (const std::int64_t e : experts) chosen[static_cast<std::size_t>(e)] = true;
    Indices tokens;
    for (std::int64_t t = 0; t < operands.T; ++t) {
        for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) {
            const std::int64_t e = operands.top_idx_host[static_cast<std::size_t>(f)];
            if (e < 0 || !chosen[static_cast<std::size_t>(e)]) continue;
            tokens.push_back(t);
            break;
        }
    }
    ReferenceGradients sum;
    sum.dA.resize(experts.size() * static_cast<std::size_t>(p.R * p.K));
    sum.dB.resize(experts.size() * static_cast<std::size_t>(p.N * p.R));
    const std::int64_t token_bytes = p.top_k * (p.K + p.N) * static_cast<std::int64_t>(sizeof(double));
    for (const Indices& some : pieces(tokens, memory_bound / token_bytes)) {
        Part part(operands, routing, some);
        part.select(cpu, experts);
        Values dA(sum.dA.size());
        Values dB(sum.dB.size());
        BackwardLoraArgs args;
        args.x = part.x_view();
        args.dy = part.dy_view();
        args.A = part.A_view();
        args.B = part.B_view();
        args.gates = part.gates_view();
        args.routing = part.routing();
        args.scaling = Operands::scaling;
        args.dA = view(dA, {part.p.E, p.R, p.K});
        args.dB = view(dB, {part.p.E, p.N, p.R});
        backward_lora(cpu, {}, part.p, args);
        add(sum.dA, dA);
        add(sum.dB, dB);
    }
    return sum;
}

}  // namespace smlora::tool
