#include "smlora_tune/verification.hpp"

#include "smlora_tune/host_rows.hpp"
#include "smlora_tune/reference.hpp"

#include <smlora/activation.hpp>
#include <smlora/operations.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace smlora::tool {
namespace {

using Indices = std::vector<std::int64_t>;
using Values = std::vector<double>;

// All bits set: not a number in every floating-point type, -1 in integers. An element that is not written shows.
constexpr unsigned char poison = 0xFF;

Indices sample_tokens(std::int64_t T, std::int64_t sample, std::uint64_t seed) {
    Indices tokens(static_cast<std::size_t>(T));
    std::iota(tokens.begin(), tokens.end(), 0);
    if (sample == 0 || sample >= T) return tokens;
    // The ends are where tiles are partly filled.
    std::mt19937_64 generator(seed);
    std::shuffle(tokens.begin() + 1, tokens.end() - 1, generator);
    std::swap(tokens[1], tokens.back());
    tokens.resize(static_cast<std::size_t>(std::max<std::int64_t>(sample, 2)));
    std::sort(tokens.begin(), tokens.end());
    return tokens;
}

/// Random experts that have `rows` rows between them, and one that has none if there is one.
Indices sample_experts(const HostRouting& routing, std::int64_t rows, std::uint64_t seed) {
    const auto E = static_cast<std::int64_t>(routing.expert_offsets.size());
    Indices experts(routing.expert_offsets.size());
    std::iota(experts.begin(), experts.end(), 0);
    if (rows == 0) return experts;
    const auto count = [&](std::int64_t e) {
        const auto i = static_cast<std::size_t>(e);
        return routing.expert_offsets[i] - (e > 0 ? routing.expert_offsets[i - 1] : 0);
    };
    std::mt19937_64 generator(seed);
    std::shuffle(experts.begin(), experts.end(), generator);
    Indices chosen;
    std::int64_t sum = 0;
    bool empty_one = false;
    for (std::int64_t i = 0; i < E; ++i) {
        const std::int64_t e = experts[static_cast<std::size_t>(i)];
        const bool empty = count(e) == 0;
        if (empty ? empty_one : sum >= rows) continue;
        empty_one = empty_one || empty;
        sum += count(e);
        chosen.push_back(e);
    }
    std::sort(chosen.begin(), chosen.end());
    return chosen;
}

/// Everything that the checks of one problem share.
class Verification {
 public:
    Verification(const Session& session, const Engine& cpu, const Problem& problem, const OperandOptions& options,
                 std::int64_t sample, const std::function<void(std::string_view)>& tell)
        : session_(session),
          cpu_(cpu),
          tell_(tell),
          p(problem),
          operands(session.engine(), problem, options),
          routing(host_routing(operands.top_idx_host, problem.E)),
          tokens(sample_tokens(options.T, sample, options.seed)),
          sample_(sample),
          seed_(options.seed) {
        for (const std::int64_t t : tokens) {
            for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) entries.push_back(f);
        }
    }

    std::vector<Check> run() {
        tell_("reference");
        const ReferenceRows rows = reference_rows(cpu_, operands, routing, tokens);
        const Indices experts = sample_experts(routing, sample_ * p.top_k, seed_);
        const ReferenceGradients gradients =
            p.R > 0 ? reference_gradients(cpu_, operands, routing, experts) : ReferenceGradients();
        check_route();
        check_group();
        check_forward(rows);
        check_backward_input(rows);
        if (p.R > 0) check_backward_lora(gradients, experts);
        check_combine();
        check_activation(Activation::swiglu, GateLayout::halves);
        check_activation(Activation::swiglu_clamped, GateLayout::interleaved);
        return std::move(checks_);
    }

 private:
    /// An output: its memory, how it is compared, how many of its elements must have been written (-1: all of them).
    struct Output {
        std::string name;
        Array* array;
        std::function<Difference()> difference;
        bool exact = false;
        std::int64_t written = -1;
    };

    void check(const std::string& operation, const std::function<void()>& run, const std::vector<Output>& outputs) {
        tell_(operation);
        std::vector<Scan> first;
        for (int repetition = 0; repetition < 2; ++repetition) {
            for (const Output& output : outputs) output.array->buffer.fill(poison);
            run();
            synchronize(session_.engine(), session_.stream());
            for (std::size_t i = 0; i < outputs.size(); ++i) {
                const Output& output = outputs[i];
                const DType dtype = output.array->tensor.dtype;
                const std::size_t elements = output.written < 0 ? output.array->buffer.bytes() / size_of(dtype)
                                                                : static_cast<std::size_t>(output.written);
                const Scan scanned = scan(*output.array, elements);
                if (repetition == 0) {
                    first.push_back(scanned);
                    Check result;
                    result.operation = operation;
                    result.output = output.name;
                    result.exact = output.exact;
                    result.tolerance = output.exact ? 0 : tolerance_of(p.dtype, elements);
                    result.non_finite = scanned.non_finite;
                    result.difference = output.difference();
                    checks_.push_back(std::move(result));
                } else {
                    checks_[checks_.size() - outputs.size() + i].repeatable = scanned.hash == first[i].hash;
                }
            }
        }
    }

    // The sizes of numbers, by the way in which Operands draws its own. Of gates between 0.05 and 1, and of rows that
    // are multiplied with them, about a half.
    static constexpr double gate_scale = 0.5;
    static constexpr double xa_scale = static_cast<double>(Operands::scaling);
    [[nodiscard]] double y_scale() const { return p.gates ? gate_scale : 1; }
    [[nodiscard]] static double ratio(std::int64_t a, std::int64_t b) {
        return static_cast<double>(a) / static_cast<double>(b);
    }

    [[nodiscard]] Difference exactly(bool equal) const {
        constexpr double infinite = std::numeric_limits<double>::infinity();
        return equal ? Difference{} : Difference{infinite, infinite};
    }

    /// Rows of an output in the order of `order`, against those of the reference; `scale` as in compare.
    [[nodiscard]] Output rows_output(const std::string& name, Array& array, RowOrder order, const Values& want,
                                     double scale) {
        const std::int64_t width = array.tensor.shape[1];
        return {name, &array, [this, &array, order, width, &want, scale] {
                    const Values got = read_rows(array, width, width, rows_of_tokens(order, p.top_k, routing, tokens));
                    return compare(got, want, static_cast<std::size_t>(width), scale);
                }};
    }

    /// xa or yb: the reference has a row for each sampled entry, the output one for each position.
    [[nodiscard]] Output rank_output(const std::string& name, Array& array, const Values& want, double scale) {
        const std::int64_t stride = padded_rank(p);
        scale *= std::sqrt(static_cast<double>(p.R) / static_cast<double>(stride));
        const std::int64_t rows = routing.expert_offsets.back();
        return {name, &array,
                [this, &array, stride, &want, scale] {
                    Indices positions;
                    Values padded;
                    for (std::size_t i = 0; i < entries.size(); ++i) {
                        // Nothing is promised of the rows of entries left out.
                        if (operands.top_idx_host[static_cast<std::size_t>(entries[i])] < 0) continue;
                        positions.push_back(routing.positions[static_cast<std::size_t>(entries[i])]);
                        const auto row = want.begin() + static_cast<std::ptrdiff_t>(i) * p.R;
                        padded.insert(padded.end(), row, row + p.R);
                        padded.resize(padded.size() + static_cast<std::size_t>(stride - p.R));
                    }
                    return compare(read_rows(array, stride, stride, positions), padded,
                                   static_cast<std::size_t>(stride), scale);
                },
                false, rows * stride};
    }

    void check_route() {
        const RouteArgs args = operands.route_args();
        const auto same = [this](Array& array, const Indices& want) {
            return [this, &array, &want] { return exactly(read_integers(array) == want); };
        };
        check("route", [&] { route(session_.engine(), session_.stream(), p, args); },
              {{"sorted_expert_idxs", &operands.sorted_expert_idxs,
                same(operands.sorted_expert_idxs, routing.sorted_expert_idxs), true},
               {"sorted_scattered_idxs", &operands.sorted_scattered_idxs,
                same(operands.sorted_scattered_idxs, routing.sorted_scattered_idxs), true},
               {"expert_offsets", &operands.expert_offsets, same(operands.expert_offsets, routing.expert_offsets),
                true}});
    }

    /// The array's own memory, filled like the operands.
    [[nodiscard]] Array make(const Tensor& shape, Distribution distribution, std::string_view role) const {
        Array array;
        array.buffer = Buffer(session_.engine(), static_cast<std::size_t>(shape.numel()) * size_of(shape.dtype));
        array.tensor = shape;
        array.tensor.data = array.buffer.data();
        fill_random(array.buffer, shape.numel(), shape.dtype, distribution, 1, seed_, role);
        return array;
    }

    /// Gathering the rows of x, alone and with a gate for each.
    void check_group() {
        Problem problem = p;
        if (problem.x_rows == RowOrder::grouped) problem.x_rows = RowOrder::scattered;
        const Array gates = make({nullptr, p.gate_dtype, {operands.T, p.top_k}}, Distribution::positive, "group gates");
        Array out = make({nullptr, p.dtype, {operands.M, p.K}}, Distribution::normal, "group out");
        Indices sources;
        Indices positions;
        for (const std::int64_t f : entries) {
            sources.push_back(problem.x_rows == RowOrder::token ? f / p.top_k : f);
            positions.push_back(routing.positions[static_cast<std::size_t>(f)]);
        }
        Values want = read_rows(operands.x, p.K, p.K, sources);
        const Values factors = read_rows(gates, p.top_k, p.top_k, tokens);
        const auto width = static_cast<std::size_t>(p.K);
        for (std::size_t i = 0; i < entries.size(); ++i) {
            if (operands.top_idx_host[static_cast<std::size_t>(entries[i])] >= 0) continue;
            std::fill_n(want.begin() + static_cast<std::ptrdiff_t>(i * width), width, 0.0);
        }
        GroupArgs args;
        args.x = operands.x.tensor;
        args.routing = operands.forward_args().routing;
        args.out = out.tensor;
        const auto run = [&] { group(session_.engine(), session_.stream(), problem, args); };
        const auto got = [&] { return read_rows(out, p.K, p.K, positions); };
        check("group", run, {{"out", &out, [&] { return exactly(got() == want); }, true}});
        args.gates = gates.tensor;
        for (std::size_t i = 0; i < want.size(); ++i) want[i] *= factors[i / width];
        check("group, gates", run, {{"out", &out, [&] { return compare(got(), want, width, gate_scale); }}});
    }

    void check_forward(const ReferenceRows& rows) {
        const ForwardArgs args = operands.forward_args();
        const auto run_base = [&] { scatter2scatter(session_.engine(), session_.stream(), p, args); };
        check("scatter2scatter", run_base, {rows_output("y", operands.y, p.y_rows, rows.base, y_scale())});
        if (p.R > 0) {
            const auto elements = static_cast<std::size_t>(operands.y.tensor.numel());
            const std::string base = scan(operands.y, elements).hash;
            ForwardArgs unscaled = args;
            unscaled.scaling = 0;
            unscaled.xa = Tensor();
            check("forward, scaling 0", [&] { forward(session_.engine(), session_.stream(), p, unscaled); },
                  {{"y", &operands.y, [&] { return exactly(scan(operands.y, elements).hash == base); }, true}});
        }
        std::vector<Output> outputs{rows_output("y", operands.y, p.y_rows, rows.y, y_scale())};
        if (p.R > 0) outputs.push_back(rank_output("xa", operands.xa, rows.xa, xa_scale));
        check(
            "forward", [&] { forward(session_.engine(), session_.stream(), p, args); }, outputs);
    }

    void check_backward_input(const ReferenceRows& rows) {
        const BackwardInputArgs args = operands.backward_input_args();
        std::vector<Output> outputs{
            rows_output("dx", operands.dx, p.x_rows, rows.dx, y_scale() * std::sqrt(ratio(p.N, p.K)))};
        if (p.R > 0) outputs.push_back(rank_output("yb", operands.yb, rows.yb, std::sqrt(ratio(p.N, p.R))));
        if (p.gates) {
            const double scale = std::sqrt(ratio(p.N, 1));
            outputs.push_back(rows_output("dgates", operands.dgates, RowOrder::token, rows.dgates, scale));
        }
        check(
            "backward_input", [&] { backward_input(session_.engine(), session_.stream(), p, args); }, outputs);
    }

    /// With xa and yb from before, and computing them again.
    void check_backward_lora(const ReferenceGradients& gradients, const Indices& experts) {
        const auto output = [&](const std::string& name, Array& array, const Values& want, double scale) -> Output {
            const auto width = static_cast<std::size_t>(array.tensor.shape[1] * array.tensor.shape[2]);
            return {name, &array, [&array, &want, &experts, width, scale] {
                        return compare(read_experts(array, experts), want, width, scale);
                    }};
        };
        const std::vector<Output> outputs{
            output("dA", operands.dA, gradients.dA, y_scale() * std::sqrt(ratio(p.N, p.R))),
            output("dB", operands.dB, gradients.dB, y_scale() * xa_scale)};
        BackwardLoraArgs args = operands.backward_lora_args();
        const auto run = [&] { backward_lora(session_.engine(), session_.stream(), p, args); };
        check("backward_lora", run, outputs);
        args.xa = Tensor();
        args.yb = Tensor();
        check("backward_lora, no xa, yb", run, outputs);
    }

    /// Summing the rows of a token, and the gradients of that. Width N, whatever the order of y's rows.
    void check_combine() {
        const Array y = make({nullptr, p.dtype, {operands.M, p.N}}, Distribution::normal, "combine y");
        const Array gates =
            make({nullptr, p.gate_dtype, {operands.T, p.top_k}}, Distribution::positive, "combine gates");
        const Array dout = make({nullptr, p.dtype, {operands.T, p.N}}, Distribution::normal, "combine dout");
        Array out = make({nullptr, p.dtype, {operands.T, p.N}}, Distribution::normal, "combine out");
        Array dy = make({nullptr, p.dtype, {operands.M, p.N}}, Distribution::normal, "combine dy");
        Array dgates = make({nullptr, p.gate_dtype, {operands.T, p.top_k}}, Distribution::normal, "combine dgates");

        const auto sampled = static_cast<std::int64_t>(tokens.size());
        Values y64 = read_rows(y, p.N, p.N, entries);
        Values gates64 = read_rows(gates, p.top_k, p.top_k, tokens);
        Values dout64 = read_rows(dout, p.N, p.N, tokens);
        Values out64(static_cast<std::size_t>(sampled * p.N));
        Values dy64(static_cast<std::size_t>(sampled * p.top_k * p.N));
        Values dgates64(static_cast<std::size_t>(sampled * p.top_k));
        const Problem p64 = reference_problem(p, p.E);
        CombineArgs forward64;
        forward64.y = {y64.data(), DType::fp64, {sampled * p.top_k, p.N}};
        forward64.gates = {gates64.data(), DType::fp64, {sampled, p.top_k}};
        forward64.out = {out64.data(), DType::fp64, {sampled, p.N}};
        combine(cpu_, {}, p64, forward64);
        CombineBackwardArgs backward64;
        backward64.dout = {dout64.data(), DType::fp64, {sampled, p.N}};
        backward64.y = forward64.y;
        backward64.gates = forward64.gates;
        backward64.dy = {dy64.data(), DType::fp64, {sampled * p.top_k, p.N}};
        backward64.dgates = {dgates64.data(), DType::fp64, {sampled, p.top_k}};
        combine_backward(cpu_, {}, p64, backward64);

        CombineArgs args;
        args.y = y.tensor;
        args.gates = gates.tensor;
        args.out = out.tensor;
        check("combine", [&] { combine(session_.engine(), session_.stream(), p, args); },
              {rows_output("out", out, RowOrder::token, out64, gate_scale)});
        CombineBackwardArgs backward;
        backward.dout = dout.tensor;
        backward.y = y.tensor;
        backward.gates = gates.tensor;
        backward.dy = dy.tensor;
        backward.dgates = dgates.tensor;
        check("combine_backward", [&] { combine_backward(session_.engine(), session_.stream(), p, backward); },
              {rows_output("dy", dy, RowOrder::scattered, dy64, gate_scale),
               rows_output("dgates", dgates, RowOrder::token, dgates64, std::sqrt(ratio(p.N, 1)))});
    }

    /// A gated activation of width N on M rows, and its gradient.
    void check_activation(Activation kind, GateLayout layout) {
        const Array h = make({nullptr, p.dtype, {operands.M, 2 * p.N}}, Distribution::normal, "activation h");
        const Array da = make({nullptr, p.dtype, {operands.M, p.N}}, Distribution::normal, "activation da");
        Array a = make({nullptr, p.dtype, {operands.M, p.N}}, Distribution::normal, "activation a");
        Array dh = make({nullptr, p.dtype, {operands.M, 2 * p.N}}, Distribution::normal, "activation dh");

        const auto rows = static_cast<std::int64_t>(entries.size());
        Values h64 = read_rows(h, 2 * p.N, 2 * p.N, entries);
        Values da64 = read_rows(da, p.N, p.N, entries);
        Values a64(static_cast<std::size_t>(rows * p.N));
        Values dh64(static_cast<std::size_t>(rows * 2 * p.N));
        ActivationBackwardArgs args64{{h64.data(), DType::fp64, {rows, 2 * p.N}},
                                      {da64.data(), DType::fp64, {rows, p.N}},
                                      {dh64.data(), DType::fp64, {rows, 2 * p.N}},
                                      {a64.data(), DType::fp64, {rows, p.N}},
                                      kind,
                                      layout};
        activation_backward(cpu_, {}, reference_problem(p, p.E), args64);

        const ActivationArgs args{h.tensor, a.tensor, kind, layout};
        check(fmt::format("activation, {}", name(kind)),
              [&] { activation(session_.engine(), session_.stream(), p, args); },
              {rows_output("a", a, RowOrder::scattered, a64, gate_scale)});
        const ActivationBackwardArgs backward{h.tensor, da.tensor, dh.tensor, {}, kind, layout};
        check(fmt::format("activation_backward, {}", name(kind)),
              [&] { activation_backward(session_.engine(), session_.stream(), p, backward); },
              {rows_output("dh", dh, RowOrder::scattered, dh64, gate_scale)});
    }

    const Session& session_;
    const Engine& cpu_;
    const std::function<void(std::string_view)>& tell_;
    const Problem p;
    Operands operands;
    const HostRouting routing;
    const Indices tokens;  // those with a reference
    Indices entries;       // theirs, flat
    const std::int64_t sample_;
    const std::uint64_t seed_;
    std::vector<Check> checks_;
};

}  // namespace

std::vector<Check> verify_problem(const Session& session, const Engine& cpu, const Problem& problem,
                                  const OperandOptions& options, std::int64_t sample,
                                  const std::function<void(std::string_view)>& tell) {
    return Verification(session, cpu, problem, options, sample, tell).run();
}

}  // namespace smlora::tool
