#include "unit/cpu/layer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace smlora::test {
namespace {

Array adapter_array(const LayerOptions& options, bool is_a) {
    const Problem& p = options.problem;
    const std::int64_t E = p.E;
    const std::int64_t R = p.R;
    const std::int64_t K = p.K;
    const std::int64_t N = p.N;
    const DType dtype = p.adapter_dtype;
    if (is_a) {
        if (options.adapter == AdapterLayout::transposed) return Array(dtype, {E, R, K}, {R, 1, E * R});
        return Array(dtype, {E, R, K});
    }
    switch (options.adapter) {
        case AdapterLayout::stacked:
            return Array(dtype, {E, N, R}, {R, E * R, 1});
        case AdapterLayout::peft:
            return Array(dtype, {E, N, R}, {1, E * R, E});
        case AdapterLayout::transposed:
            return Array(dtype, {E, N, R}, {1, E, E * N});
        default:
            return Array(dtype, {E, N, R});
    }
}

const char* tokens_name(Tokens tokens) {
    switch (tokens) {
        case Tokens::random:
            return "random";
        case Tokens::one_expert:
            return "one_expert";
        case Tokens::some_left_out:
            return "some_left_out";
        case Tokens::all_left_out:
            return "all_left_out";
        case Tokens::few_experts:
            return "few_experts";
    }
    return "";
}

}  // namespace

std::string test_name(const LayerOptions& options) {
    std::string text = to_string(options.problem) + " T" + std::to_string(options.T) + " " +
                       tokens_name(options.tokens) + " adapter" + std::to_string(static_cast<int>(options.adapter)) +
                       " gap" + std::to_string(options.row_gap);
    for (char& c : text) {
        if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
    }
    return text;
}

Layer::Layer(const LayerOptions& options_) : options(options_), problem(options_.problem) {
    std::mt19937_64 random(options.seed);
    make_routing(random);
    x = make_rows(problem.x_rows, problem.K);
    x.randomize(random);
    dy = make_rows(problem.y_rows, problem.N);
    dy.randomize(random);
    const bool ekn = problem.weight_layout == WeightLayout::ekn;
    const std::int64_t inner = ekn ? problem.N : problem.K;
    const std::int64_t outer = ekn ? problem.K : problem.N;
    W = Array(problem.dtype, {problem.E, outer, inner}, {outer * inner + options.expert_gap, inner, 1});
    W.randomize(random, 1.0 / std::sqrt(static_cast<double>(problem.K)));
    if (problem.R > 0) {
        A = make_a();
        A.randomize(random, 1.0 / std::sqrt(static_cast<double>(problem.K)));
        B = make_b();
        B.randomize(random, 1.0 / std::sqrt(static_cast<double>(problem.R)));
    }
    if (problem.bias) {
        bias = Array(problem.dtype, {problem.E, problem.N});
        bias.randomize(random);
    }
    if (problem.gates) {
        gates = make_gates();
        gates.randomize(random);
    }
}

void Layer::make_routing(std::mt19937_64& random) {
    const std::int64_t E = problem.E;
    std::uniform_int_distribution<std::int64_t> expert(0, E - 1);
    std::bernoulli_distribution left_out(0.3);
    top_idx = Array(DType::int64, {options.T, problem.top_k});
    std::vector<std::int64_t> experts;
    for (std::int64_t f = 0; f < M(); ++f) {
        std::int64_t e = expert(random);
        if (options.tokens == Tokens::one_expert) e = E / 2;
        if (options.tokens == Tokens::few_experts) e = e / 3 * 3;
        if (options.tokens == Tokens::all_left_out || (options.tokens == Tokens::some_left_out && left_out(random))) {
            e = -1;
        }
        top_idx.set_integer(e, f / problem.top_k, f % problem.top_k);
        experts.push_back(e < 0 ? E : e);
    }
    entry_of_.resize(experts.size());
    std::iota(entry_of_.begin(), entry_of_.end(), 0);
    auto of = [&](std::int64_t f) { return experts[static_cast<std::size_t>(f)]; };
    std::stable_sort(entry_of_.begin(), entry_of_.end(), [&](auto a, auto b) { return of(a) < of(b); });

    sorted_expert_idxs = Array(problem.index_dtype, {M()});
    sorted_scattered_idxs = Array(problem.index_dtype, {M()});
    expert_offsets = Array(problem.index_dtype, {E});
    std::vector<std::int64_t> counts(static_cast<std::size_t>(E) + 1);
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t f = entry_of_[static_cast<std::size_t>(i)];
        expert_of_.push_back(of(f));
        sorted_expert_idxs.set_integer(of(f), i);
        sorted_scattered_idxs.set_integer(f, i);
        ++counts[static_cast<std::size_t>(of(f))];
    }
    std::int64_t total = 0;
    for (std::int64_t e = 0; e < E; ++e) {
        total += counts[static_cast<std::size_t>(e)];
        expert_offsets.set_integer(total, e);
    }
}

Array Layer::make_rows(RowOrder order, std::int64_t columns) const {
    const std::int64_t rows = order == RowOrder::token ? options.T : M();
    return Array(problem.dtype, {rows, columns}, {columns + options.row_gap, 1});
}

Array Layer::make_y() const { return make_rows(problem.y_rows, problem.N); }
Array Layer::make_dx() const { return make_rows(problem.x_rows, problem.K); }
Array Layer::make_rank_rows() const { return Array(problem.dtype, {M(), problem.R}, {padded_rank(problem), 1}); }
Array Layer::make_a() const { return adapter_array(options, true); }
Array Layer::make_b() const { return adapter_array(options, false); }
Array Layer::make_gates() const { return Array(problem.gate_dtype, {options.T, problem.top_k}); }

Routing Layer::routing() const { return {sorted_expert_idxs, sorted_scattered_idxs, expert_offsets}; }

ForwardArgs Layer::forward_args() const {
    ForwardArgs args;
    args.x = x;
    args.W = W;
    args.A = A;
    args.B = B;
    args.bias = bias;
    args.gates = gates;
    args.routing = routing();
    args.scaling = options.scaling;
    return args;
}

BackwardInputArgs Layer::backward_input_args() const {
    BackwardInputArgs args;
    args.dy = dy;
    args.W = W;
    args.A = A;
    args.B = B;
    args.gates = gates;
    args.routing = routing();
    args.scaling = options.scaling;
    return args;
}

BackwardLoraArgs Layer::backward_lora_args() const {
    BackwardLoraArgs args;
    args.x = x;
    args.dy = dy;
    args.A = A;
    args.B = B;
    args.gates = gates;
    args.routing = routing();
    args.scaling = options.scaling;
    return args;
}

std::int64_t Layer::row(RowOrder order, std::int64_t i) const {
    const std::int64_t f = entry_of_[static_cast<std::size_t>(i)];
    if (order == RowOrder::token) return f / problem.top_k;
    return order == RowOrder::scattered ? f : i;
}

double Layer::weight(std::int64_t e, std::int64_t k, std::int64_t n) const {
    return problem.weight_layout == WeightLayout::ekn ? W.at(e, k, n) : W.at(e, n, k);
}

double Layer::gate(std::int64_t i) const {
    const std::int64_t f = entry_of_[static_cast<std::size_t>(i)];
    return problem.gates ? gates.at(f / problem.top_k, f % problem.top_k) : 1.0;
}

Rows Layer::xa_rows() const {
    Rows rows(static_cast<std::size_t>(M()), std::vector<double>(static_cast<std::size_t>(problem.R)));
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t e = expert_of_[static_cast<std::size_t>(i)];
        if (e == problem.E) continue;
        for (std::int64_t r = 0; r < problem.R; ++r) {
            double sum = 0;
            for (std::int64_t k = 0; k < problem.K; ++k) sum += x.at(row(problem.x_rows, i), k) * A.at(e, r, k);
            rows[static_cast<std::size_t>(i)][static_cast<std::size_t>(r)] = static_cast<double>(options.scaling) * sum;
        }
    }
    return rows;
}

Rows Layer::yb_rows() const {
    Rows rows(static_cast<std::size_t>(M()), std::vector<double>(static_cast<std::size_t>(problem.R)));
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t e = expert_of_[static_cast<std::size_t>(i)];
        if (e == problem.E) continue;
        for (std::int64_t r = 0; r < problem.R; ++r) {
            double sum = 0;
            for (std::int64_t n = 0; n < problem.N; ++n) sum += dy.at(row(problem.y_rows, i), n) * B.at(e, n, r);
            rows[static_cast<std::size_t>(i)][static_cast<std::size_t>(r)] = static_cast<double>(options.scaling) * sum;
        }
    }
    return rows;
}

std::vector<double> Layer::place(const Rows& rows, RowOrder order, std::int64_t columns, bool gated) const {
    const std::int64_t count = order == RowOrder::token ? options.T : M();
    std::vector<double> placed(static_cast<std::size_t>(count * columns));
    for (std::int64_t i = 0; i < M(); ++i) {
        const double g = gated ? gate(i) : 1.0;
        for (std::int64_t c = 0; c < columns; ++c) {
            placed[static_cast<std::size_t>(row(order, i) * columns + c)] +=
                g * rows[static_cast<std::size_t>(i)][static_cast<std::size_t>(c)];
        }
    }
    return placed;
}

std::vector<double> Layer::expected_xa() const { return place(xa_rows(), RowOrder::grouped, problem.R, false); }
std::vector<double> Layer::expected_yb() const { return place(yb_rows(), RowOrder::grouped, problem.R, false); }

std::vector<double> Layer::expected_y() const {
    const Rows xa = xa_rows();
    Rows y(static_cast<std::size_t>(M()), std::vector<double>(static_cast<std::size_t>(problem.N)));
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t e = expert_of_[static_cast<std::size_t>(i)];
        if (e == problem.E) continue;
        for (std::int64_t n = 0; n < problem.N; ++n) {
            double sum = problem.bias ? bias.at(e, n) : 0.0;
            for (std::int64_t k = 0; k < problem.K; ++k) sum += x.at(row(problem.x_rows, i), k) * weight(e, k, n);
            for (std::int64_t r = 0; r < problem.R; ++r) {
                sum += xa[static_cast<std::size_t>(i)][static_cast<std::size_t>(r)] * B.at(e, n, r);
            }
            y[static_cast<std::size_t>(i)][static_cast<std::size_t>(n)] = sum;
        }
    }
    return place(y, problem.y_rows, problem.N, true);
}

Rows Layer::dx_rows_without_gates() const {
    const Rows yb = yb_rows();
    Rows dx(static_cast<std::size_t>(M()), std::vector<double>(static_cast<std::size_t>(problem.K)));
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t e = expert_of_[static_cast<std::size_t>(i)];
        if (e == problem.E) continue;
        for (std::int64_t k = 0; k < problem.K; ++k) {
            double sum = 0;
            for (std::int64_t n = 0; n < problem.N; ++n) sum += dy.at(row(problem.y_rows, i), n) * weight(e, k, n);
            for (std::int64_t r = 0; r < problem.R; ++r) {
                sum += yb[static_cast<std::size_t>(i)][static_cast<std::size_t>(r)] * A.at(e, r, k);
            }
            dx[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)] = sum;
        }
    }
    return dx;
}

std::vector<double> Layer::expected_dx() const {
    return place(dx_rows_without_gates(), problem.x_rows, problem.K, true);
}

// From its definition <dy_t, y_f>, where the library takes the way without y.
std::vector<double> Layer::expected_dgates() const {
    const Rows xa = xa_rows();
    std::vector<double> dgates(static_cast<std::size_t>(M()));
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t e = expert_of_[static_cast<std::size_t>(i)];
        if (e == problem.E) continue;
        double gradient = 0;
        for (std::int64_t n = 0; n < problem.N; ++n) {
            double y = problem.bias ? bias.at(e, n) : 0.0;
            for (std::int64_t k = 0; k < problem.K; ++k) y += x.at(row(problem.x_rows, i), k) * weight(e, k, n);
            for (std::int64_t r = 0; r < problem.R; ++r) {
                y += xa[static_cast<std::size_t>(i)][static_cast<std::size_t>(r)] * B.at(e, n, r);
            }
            gradient += dy.at(row(RowOrder::token, i), n) * y;
        }
        dgates[static_cast<std::size_t>(entry_of_[static_cast<std::size_t>(i)])] = gradient;
    }
    return dgates;
}

std::vector<double> Layer::expected_dA() const {
    const Rows yb = yb_rows();
    std::vector<double> dA(static_cast<std::size_t>(problem.E * problem.R * problem.K));
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t e = expert_of_[static_cast<std::size_t>(i)];
        if (e == problem.E) continue;
        for (std::int64_t r = 0; r < problem.R; ++r) {
            for (std::int64_t k = 0; k < problem.K; ++k) {
                dA[static_cast<std::size_t>((e * problem.R + r) * problem.K + k)] +=
                    gate(i) * yb[static_cast<std::size_t>(i)][static_cast<std::size_t>(r)] *
                    x.at(row(problem.x_rows, i), k);
            }
        }
    }
    return dA;
}

std::vector<double> Layer::expected_dB() const {
    const Rows xa = xa_rows();
    std::vector<double> dB(static_cast<std::size_t>(problem.E * problem.N * problem.R));
    for (std::int64_t i = 0; i < M(); ++i) {
        const std::int64_t e = expert_of_[static_cast<std::size_t>(i)];
        if (e == problem.E) continue;
        for (std::int64_t n = 0; n < problem.N; ++n) {
            for (std::int64_t r = 0; r < problem.R; ++r) {
                dB[static_cast<std::size_t>((e * problem.N + n) * problem.R + r)] +=
                    gate(i) * dy.at(row(problem.y_rows, i), n) *
                    xa[static_cast<std::size_t>(i)][static_cast<std::size_t>(r)];
            }
        }
    }
    return dB;
}

}  // namespace smlora::test
