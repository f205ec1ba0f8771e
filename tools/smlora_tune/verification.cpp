#include "smlora_tune/verification.hpp"

#include "smlora_tune/scan.hpp"
#include "workload/activation.hpp"
#include "workload/reference.hpp"
#include "workload/rows.hpp"

#include <smlora/activation.hpp>
#include <smlora/operations.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <unordered_map>

namespace smlora::tool {
namespace {

using Indices = std::vector<std::int64_t>;
using workload::Array;
using workload::Difference;
using workload::HostRouting;
using workload::index;
using workload::Values;

Indices sample_tokens(std::int64_t T, std::int64_t sample, std::uint64_t seed) {
    Indices tokens(index(T));
    std::iota(tokens.begin(), tokens.end(), 0);
    if (sample == 0 || sample >= T) return tokens;
    // The ends are where tiles are partly filled.
    std::mt19937_64 generator(seed);
    std::shuffle(tokens.begin() + 1, tokens.end() - 1, generator);
    std::swap(tokens[1], tokens.back());
    tokens.resize(index(std::max<std::int64_t>(sample, 2)));
    std::sort(tokens.begin(), tokens.end());
    return tokens;
}

/// Random experts that have `rows` rows between them, and one that has none if there is one.
Indices sample_experts(const HostRouting& routing, std::int64_t rows, std::uint64_t seed) {
    Indices experts(routing.expert_offsets.size());
    std::iota(experts.begin(), experts.end(), 0);
    if (rows == 0) return experts;
    std::mt19937_64 generator(seed);
    std::shuffle(experts.begin(), experts.end(), generator);
    Indices chosen;
    std::int64_t sum = 0;
    bool empty_one = false;
    for (const std::int64_t e : experts) {
        const std::int64_t count = routing.end(e) - routing.begin(e);
        if (count == 0 ? empty_one : sum >= rows) continue;
        empty_one = empty_one || count == 0;
        sum += count;
        chosen.push_back(e);
    }
    std::sort(chosen.begin(), chosen.end());
    return chosen;
}

std::int64_t most_rows(const HostRouting& routing) {
    std::int64_t most = 0;
    for (std::size_t e = 0; e < routing.expert_offsets.size(); ++e) {
        const auto expert = static_cast<std::int64_t>(e);
        most = std::max(most, routing.end(expert) - routing.begin(expert));
    }
    return most;
}

void append(Values& all, const Values& row) { all.insert(all.end(), row.begin(), row.end()); }

/// The reference of a sorted position.
struct Entry {
    Values base, y, xa, dx, yb;
};

/// Everything that the checks of one problem share.
class Verification {
 public:
    Verification(const Session& session, const Problem& problem, const OperandOptions& options, std::int64_t sample,
                 const std::function<void(std::string_view)>& tell)
        : session_(session),
          tell_(tell),
          p(problem),
          operands(session.engine(), problem, options),
          routing(operands.inputs.host_routing),
          tokens(sample_tokens(options.T, sample, options.seed)),
          reference_(operands.inputs),
          sample_(sample),
          seed_(options.seed),
          terms_(std::max({problem.K, problem.N, most_rows(routing)})) {
        for (const std::int64_t t : tokens) {
            for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) entries.push_back(f);
        }
    }

    std::vector<Check> run() {
        tell_("reference");
        compute_entries();
        check_route();
        if (operands.inputs.encoded) check_dequantize();
        check_group();
        check_forward();
        check_backward_input();
        if (p.R > 0) check_backward_lora();
        check_combine();
        check_activation(Activation::swiglu, GateLayout::halves);
        check_activation(Activation::swiglu_clamped, GateLayout::interleaved);
        check_activation_gates();
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
        /// Over which roundings average (-1: those that are written).
        std::int64_t numbers = -1;
    };

    void check(const std::string& operation, const std::function<void()>& run, const std::vector<Output>& outputs) {
        tell_(operation);
        std::vector<Scan> first;
        for (int repetition = 0; repetition < 2; ++repetition) {
            // An element that is not written is not a number afterwards.
            for (const Output& output : outputs) output.array->poison();
            run();
            synchronize(session_.engine(), session_.stream());
            for (std::size_t i = 0; i < outputs.size(); ++i) {
                const Output& output = outputs[i];
                const std::size_t elements = index(output.written < 0 ? output.array->numel() : output.written);
                const Scan scanned = scan(*output.array, elements);
                if (repetition == 0) {
                    first.push_back(scanned);
                    Check result;
                    result.operation = operation;
                    result.output = output.name;
                    result.exact = output.exact;
                    const std::size_t numbers = output.numbers < 0 ? elements : index(output.numbers);
                    result.tolerance =
                        output.exact ? 0 : workload::tolerance_of(p.dtype, {.terms = terms_, .numbers = numbers});
                    result.non_finite = scanned.non_finite;
                    result.difference = output.difference();
                    checks_.push_back(std::move(result));
                } else {
                    checks_[checks_.size() - outputs.size() + i].repeatable = scanned.hash == first[i].hash;
                }
            }
        }
    }

    // The sizes of numbers, by the way in which workload::Projection draws its inputs. Of gates between 0 and 1, and of
    // rows that are multiplied with them, about a half.
    static constexpr double gate_scale = 0.5;
    [[nodiscard]] double xa_scale() const { return static_cast<double>(operands.inputs.spec.scaling); }
    [[nodiscard]] double y_scale() const { return p.gates ? gate_scale : 1; }
    [[nodiscard]] static double root_of_ratio(std::int64_t a, std::int64_t b) {
        return std::sqrt(static_cast<double>(a) / static_cast<double>(b));
    }

    [[nodiscard]] static Difference exactly(bool equal) {
        constexpr double infinite = std::numeric_limits<double>::infinity();
        return equal ? Difference{} : Difference{infinite, infinite};
    }

    /// The rows of a matrix in this order that belong to the sampled tokens.
    [[nodiscard]] Indices sampled_rows(RowOrder order) const {
        if (order == RowOrder::token) return tokens;
        if (order == RowOrder::scattered) return entries;
        Indices rows;
        for (const std::int64_t f : entries) rows.push_back(routing.position_of(f));
        return rows;
    }

    /// The sampled rows of an output against `want(row)`; `scale` as in compare.
    template <class Want>
    [[nodiscard]] Output rows_output(const std::string& name, Array& array, RowOrder order, double scale, Want want) {
        return {name, &array, [this, &array, order, scale, want] {
                    const Indices rows = sampled_rows(order);
                    Values expected;
                    for (const std::int64_t r : rows) append(expected, want(r));
                    return workload::compare(array.read(rows), expected, index(array.width()), scale);
                }};
    }

    /// In the order of the experts, whose matrices the reference keeps one at a time.
    void compute_entries() {
        Indices positions = sampled_rows(RowOrder::grouped);
        std::sort(positions.begin(), positions.end());
        for (const std::int64_t i : positions) {
            if (i >= routing.rows()) break;
            Entry entry{reference_.base(i), {}, {}, reference_.dx(i), {}};
            if (p.R > 0) {
                entry.xa = reference_.xa(i);
                entry.yb = reference_.yb(i);
            }
            entry.y = p.R > 0 ? reference_.y(i) : entry.base;
            expected_.emplace(i, std::move(entry));
        }
    }

    /// A row of y or dx in the caller's order, made of one member of the entries.
    [[nodiscard]] auto output_row(RowOrder order, std::int64_t width, Values Entry::*part) const {
        return [this, order, width, part](std::int64_t r) {
            return reference_.output_row(order, r, width,
                                         [&](std::int64_t i) -> const Values& { return expected_.at(i).*part; });
        };
    }

    /// xa or yb: a row for each position, its columns behind the rank zero.
    [[nodiscard]] Output rank_output(const std::string& name, Array& array, Values Entry::*part, double scale) {
        const std::int64_t width = array.width();
        scale *= root_of_ratio(p.R, width);
        return {name, &array,
                [this, &array, part, scale, width] {
                    Indices positions;
                    Values want;
                    for (const std::int64_t f : entries) {
                        // Nothing is promised of the rows of entries left out.
                        if (routing.left_out(f)) continue;
                        positions.push_back(routing.position_of(f));
                        append(want, expected_.at(positions.back()).*part);
                        want.resize(want.size() + index(width - p.R));
                    }
                    return workload::compare(array.read(positions), want, index(width), scale);
                },
                false, routing.rows() * width};
    }

    void check_route() {
        const RouteArgs args = operands.route_args();
        workload::RoutingArrays& arrays = operands.inputs.routing;
        const auto output = [](const char* name, Array& array, const Indices& want) -> Output {
            return {name, &array,
                    [&array, &want] { return exactly(array.values() == Values(want.begin(), want.end())); }, true};
        };
        check("route", [&] { route(session_.engine(), session_.stream(), p, args); },
              {output("sorted_expert_idxs", arrays.sorted_expert_idxs, routing.sorted_expert_idxs),
               output("sorted_scattered_idxs", arrays.sorted_scattered_idxs, routing.sorted_scattered_idxs),
               output("expert_offsets", arrays.expert_offsets, routing.expert_offsets)});
    }

    /// To the bits that the host decodes.
    void check_dequantize() {
        const DequantizeArgs args = operands.dequantize_args();
        const Array& W = operands.inputs.W;
        check("dequantize", [&] { dequantize(session_.engine(), session_.stream(), args); },
              {{"W", &operands.unpacked,
                [&] {
                    const auto elements = index(W.numel());
                    return exactly(scan(operands.unpacked, elements).hash == scan(W, elements).hash);
                },
                true}});
    }

    [[nodiscard]] Array random_rows(RowOrder order, std::int64_t width, std::string_view role) const {
        Array array = operands.inputs.rows_of(order, width);
        array.fill_normal(workload::draws_of(seed_)(role));
        return array;
    }
    [[nodiscard]] Array gates_for(std::string_view role) const {
        return workload::random_gates(session_.engine(), p, operands.inputs.T, workload::draws_of(seed_)(role));
    }

    /// Gathering the rows of x, alone and with a gate for each.
    void check_group() {
        Problem problem = p;
        if (problem.x_rows == RowOrder::grouped) problem.x_rows = RowOrder::scattered;
        const Array x = p.x_rows == RowOrder::grouped ? random_rows(RowOrder::scattered, p.K, "group x") : Array();
        const Array& source = x.given() ? x : operands.inputs.x;
        const Array gates = gates_for("group gates");
        const Array none;
        Array out = operands.inputs.rows_of(RowOrder::grouped, p.K);
        GroupArgs args;
        args.x = source.view();
        args.routing = operands.inputs.routing.view();
        args.out = out.view();
        const auto run = [&] { group(session_.engine(), session_.stream(), problem, args); };
        const auto row_with = [&](const Array& gated) {
            return [&](std::int64_t i) { return workload::grouped_row(source, gated, routing, problem, i); };
        };
        Output copied = rows_output("out", out, RowOrder::grouped, 0, row_with(none));
        copied.exact = true;
        check("group", run, {copied});
        args.gates = gates.view();
        check("group, gates", run, {rows_output("out", out, RowOrder::grouped, gate_scale, row_with(gates))});
    }

    void check_forward() {
        const ForwardArgs args = operands.forward_args();
        const auto run_base = [&] { scatter2scatter(session_.engine(), session_.stream(), p, args); };
        check("scatter2scatter", run_base,
              {rows_output("y", operands.y, p.y_rows, y_scale(), output_row(p.y_rows, p.N, &Entry::base))});
        if (p.R > 0) {
            const auto elements = index(operands.y.numel());
            const std::string base = scan(operands.y, elements).hash;
            ForwardArgs unscaled = args;
            unscaled.scaling = 0;
            unscaled.xa = Tensor();
            check("forward, scaling 0", [&] { forward(session_.engine(), session_.stream(), p, unscaled); },
                  {{"y", &operands.y, [&] { return exactly(scan(operands.y, elements).hash == base); }, true}});
        }
        std::vector<Output> outputs{
            rows_output("y", operands.y, p.y_rows, y_scale(), output_row(p.y_rows, p.N, &Entry::y))};
        if (p.R > 0) outputs.push_back(rank_output("xa", operands.xa, &Entry::xa, xa_scale()));
        check(
            "forward", [&] { forward(session_.engine(), session_.stream(), p, args); }, outputs);
    }

    void check_backward_input() {
        const BackwardInputArgs args = operands.backward_input_args();
        std::vector<Output> outputs{rows_output("dx", operands.dx, p.x_rows, y_scale() * root_of_ratio(p.N, p.K),
                                                output_row(p.x_rows, p.K, &Entry::dx))};
        if (p.R > 0) outputs.push_back(rank_output("yb", operands.yb, &Entry::yb, root_of_ratio(p.N, p.R)));
        if (p.gates) {
            outputs.push_back(rows_output("dgates", operands.dgates, RowOrder::token, root_of_ratio(p.N, 1),
                                          [this](std::int64_t t) { return expected_dgates(t); }));
        }
        check(
            "backward_input", [&] { backward_input(session_.engine(), session_.stream(), p, args); }, outputs);
    }

    [[nodiscard]] Values expected_dgates(std::int64_t t) const {
        Values row;
        for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) {
            const std::int64_t i = routing.position_of(f);
            const Values dy = reference_.dy_row(i);
            row.push_back(
                routing.left_out(f) ? 0 : std::inner_product(dy.begin(), dy.end(), expected_.at(i).y.begin(), 0.0));
        }
        return row;
    }

    /// With xa and yb from before, and computing them again.
    void check_backward_lora() {
        const Indices experts = sample_experts(routing, sample_ * p.top_k, seed_);
        Values dA, dB;
        for (const std::int64_t e : experts) {
            append(dA, reference_.dA(e));
            append(dB, reference_.dB(e));
        }
        const auto output = [&](const char* name, Array& array, std::int64_t height, const Values& want,
                                double scale) -> Output {
            return {.name = name,
                    .array = &array,
                    .difference =
                        [&experts, &array, &want, height, scale] {
                            Values got;
                            for (const std::int64_t e : experts) append(got, array.read(e * height, height));
                            return workload::compare(got, want, index(height * array.width()), scale);
                        },
                    // A rank row's error is that of all that it is multiplied with.
                    .numbers = routing.rows() * p.R};
        };
        const std::vector<Output> outputs{output("dA", operands.dA, p.R, dA, y_scale() * root_of_ratio(p.N, p.R)),
                                          output("dB", operands.dB, p.N, dB, y_scale() * xa_scale())};
        BackwardLoraArgs args = operands.backward_lora_args();
        const auto run = [&] { backward_lora(session_.engine(), session_.stream(), p, args); };
        check("backward_lora", run, outputs);
        args.xa = Tensor();
        args.yb = Tensor();
        check("backward_lora, no xa, yb", run, outputs);
    }

    /// Summing the rows of a token, and the gradients of that. Width N, whatever the order of y's rows.
    void check_combine() {
        const Array y = random_rows(RowOrder::scattered, p.N, "combine y");
        const Array gates = gates_for("combine gates");
        const Array dout = random_rows(RowOrder::token, p.N, "combine dout");
        Array out = operands.inputs.rows_of(RowOrder::token, p.N);
        Array dy = operands.inputs.rows_of(RowOrder::scattered, p.N);
        Array dgates = operands.inputs.make_dgates();
        CombineArgs args;
        args.y = y.view();
        args.gates = gates.view();
        args.out = out.view();
        check("combine", [&] { combine(session_.engine(), session_.stream(), p, args); },
              {rows_output("out", out, RowOrder::token, gate_scale,
                           [&](std::int64_t t) { return workload::combined_row(y, gates, p.top_k, t); })});
        CombineBackwardArgs backward;
        backward.dout = dout.view();
        backward.y = y.view();
        backward.gates = gates.view();
        backward.dy = dy.view();
        backward.dgates = dgates.view();
        const auto dgates_row = [&](std::int64_t t) {
            Values row;
            for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) {
                row.push_back(workload::combine_dgate(dout, y, p.top_k, f));
            }
            return row;
        };
        check("combine_backward", [&] { combine_backward(session_.engine(), session_.stream(), p, backward); },
              {rows_output("dy", dy, RowOrder::scattered, gate_scale,
                           [&](std::int64_t f) { return workload::combine_dy_row(dout, gates, p.top_k, f); }),
               rows_output("dgates", dgates, RowOrder::token, root_of_ratio(p.N, 1), dgates_row)});
    }

    /// A gated activation of width N on M rows, and its gradient.
    void check_activation(Activation kind, GateLayout layout) {
        const Array h = random_rows(RowOrder::scattered, 2 * p.N, "activation h");
        const Array da = random_rows(RowOrder::scattered, p.N, "activation da");
        Array a = operands.inputs.rows_of(RowOrder::scattered, p.N);
        Array dh = operands.inputs.rows_of(RowOrder::scattered, 2 * p.N);
        const auto expected = [&](std::int64_t f) { return workload::activate_row(kind, layout, h.row(f), da.row(f)); };
        const ActivationArgs args{h.view(), a.view(), kind, layout};
        check(fmt::format("activation, {}", name(kind)),
              [&] { activation(session_.engine(), session_.stream(), p, args); },
              {rows_output("a", a, RowOrder::scattered, gate_scale, [&](std::int64_t f) { return expected(f).a; })});
        const ActivationBackwardArgs backward{h.view(), da.view(), dh.view(), {}, kind, layout};
        check(fmt::format("activation_backward, {}", name(kind)),
              [&] { activation_backward(session_.engine(), session_.stream(), p, backward); },
              {rows_output("dh", dh, RowOrder::scattered, gate_scale, [&](std::int64_t f) { return expected(f).dh; })});
    }

    /// The gradient of one of grouped rows, whose gates it applies, and theirs.
    void check_activation_gates() {
        const Array h = random_rows(RowOrder::grouped, 2 * p.N, "gated activation h");
        const Array da = random_rows(RowOrder::grouped, p.N, "gated activation da");
        const Array gates = gates_for("gated activation gates");
        Array dh = operands.inputs.rows_of(RowOrder::grouped, 2 * p.N);
        Array dgates = operands.inputs.make_dgates();
        const ActivationBackwardArgs args{.h = h.view(),
                                          .da = da.view(),
                                          .dh = dh.view(),
                                          .a = {},
                                          .gates = gates.view(),
                                          .sorted_scattered_idxs = operands.inputs.routing.sorted_scattered_idxs.view(),
                                          .dgates = dgates.view()};
        const auto activated = [&](std::int64_t i) {
            return workload::activate_row(args.activation, args.layout, h.row(i), da.row(i));
        };
        const auto dh_row = [&](std::int64_t i) {
            Values row = activated(i).dh;
            for (double& value : row) value *= gates.at(routing.entry(i));
            return row;
        };
        const auto dgates_row = [&](std::int64_t t) {
            Values row;
            for (std::int64_t f = t * p.top_k; f < (t + 1) * p.top_k; ++f) {
                const std::int64_t i = routing.position_of(f);
                const Values a = activated(i).a;
                const Values gradient = da.row(i);
                row.push_back(std::inner_product(a.begin(), a.end(), gradient.begin(), 0.0));
            }
            return row;
        };
        check("activation_backward, gates", [&] { activation_backward(session_.engine(), session_.stream(), p, args); },
              {rows_output("dh", dh, RowOrder::grouped, gate_scale, dh_row),
               rows_output("dgates", dgates, RowOrder::token, root_of_ratio(p.N, 1), dgates_row)});
    }

    const Session& session_;
    const std::function<void(std::string_view)>& tell_;
    const Problem p;
    Operands operands;
    const HostRouting& routing;
    const Indices tokens;  // those with a reference
    Indices entries;       // theirs, flat
    workload::Reference reference_;
    std::unordered_map<std::int64_t, Entry> expected_;  // by sorted position
    const std::int64_t sample_;
    const std::uint64_t seed_;
    const std::int64_t terms_;  // of the longest sum
    std::vector<Check> checks_;
};

}  // namespace

std::vector<Check> verify_problem(const Session& session, const Problem& problem, const OperandOptions& options,
                                  std::int64_t sample, const std::function<void(std::string_view)>& tell) {
    return Verification(session, problem, options, sample, tell).run();
}

}  // namespace smlora::tool
