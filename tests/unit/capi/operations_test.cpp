// Each operation through C gives what it gives through C++, bit for bit, on the CPU backend.
#include "support/case.hpp"
#include "support/projection.hpp"
#include "unit/capi/c_structs.hpp"
#include "workload/encoded.hpp"

#include <smlora/smlora.h>
#include <smlora/smlora.hpp>

#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace smlora::capi::test {
namespace {

using namespace smlora::test;

smlora_tensor to_c(const Tensor& tensor) {
    smlora_tensor c{};
    EXPECT_EQ(smlora_tensor_init(&c, tensor.data, static_cast<smlora_dtype>(tensor.dtype), tensor.ndim,
                                 tensor.shape.data(), tensor.strides.data()),
              SMLORA_OK);
    return c;
}

smlora_tensor to_c(const Weight& plain) { return to_c(plain.codes); }

template <class Cpp, class C>
void copy_members(const Cpp& from, C& to) {
    for_each_member<C>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) {
            const auto& value = from.*member.cpp;
            auto& c_value = to.*member.c;
            if constexpr (std::is_same_v<decltype(c_value), smlora_tensor&>) {
                c_value = to_c(value);
            } else if constexpr (requires { typename Members<std::remove_cvref_t<decltype(c_value)>>::Cpp; }) {
                copy_members(value, c_value);
            } else {
                c_value = static_cast<std::remove_cvref_t<decltype(c_value)>>(value);
            }
        }
    });
}

/// The same in C, by the members that both structs have. `c`: the others.
template <class C>
C to_c(const typename Members<C>::Cpp& from, C c) {
    copy_members(from, c);
    return c;
}
template <class C>
C to_c(const typename Members<C>::Cpp& from) {
    return to_c(from, initialised<C>());
}

/// An output as C++ writes it and as C does, both poisoned at first.
struct Twice {
    template <class Make>
    explicit Twice(const Make& make) : cpp(make()), c(make()) {}

    void expect_same() const {
        EXPECT_TRUE(c.same_bits(cpp));
        EXPECT_TRUE(c.untouched_outside());
        EXPECT_TRUE(std::isfinite(c.at(0))) << "nothing was written";
    }

    Array cpp, c;
};

Case with_gates_and_bias() {
    Case spec{.problem = shape(5, 24, 40, 3, 2, DType::fp32), .T = 9, .scaling = 0.75F};
    spec.problem.y_rows = RowOrder::token;
    spec.problem.bias = true;
    spec.problem.gates = true;
    return spec;
}

/// The experts of each token, one of them left out.
std::vector<std::int64_t> chosen_experts(const Case& spec) {
    auto top_idx = choose_experts(fresh("routing"), spec.T, spec.problem.top_k, spec.problem.E, spec.choice, 0);
    top_idx[3] = -1;
    return top_idx;
}

class COperations : public BackendFixture {
 protected:
    COperations() {
        auto options = initialised<smlora_engine_options>();
        options.backend = SMLORA_BACKEND_CPU;
        options.threads = 2;
        EXPECT_EQ(smlora_engine_create(&options, &c_engine), SMLORA_OK) << smlora_last_error();
    }
    ~COperations() override { smlora_engine_destroy(c_engine); }

    [[nodiscard]] Array random_rows(RowOrder order, std::int64_t width, std::string_view purpose) const {
        Array rows = p.rows_of(order, width);
        rows.fill_normal(fresh(purpose));
        return rows;
    }

    smlora_engine* c_engine = nullptr;
    const Case spec = with_gates_and_bias();
    const std::vector<std::int64_t> top_idx = chosen_experts(spec);
    const workload::Projection p{engine(), spec, fresh, top_idx};
    const Problem problem = spec.problem;
    const smlora_problem c_problem = to_c<smlora_problem>(problem);
};

TEST_F(COperations, Route) {
    Array chosen(engine(), DType::int32, {{p.T, problem.top_k}});
    chosen.fill([&](std::int64_t f) { return static_cast<double>(top_idx[index(f)]); });
    workload::RoutingArrays routing(engine(), DType::int32, p.host_routing);
    for (Array* array : {&routing.sorted_expert_idxs, &routing.sorted_scattered_idxs, &routing.expert_offsets}) {
        array->poison();
    }
    const auto args = to_c<smlora_route_args>({.top_idx = chosen.view(), .routing = routing.view(), .workspace = {}});
    ASSERT_EQ(smlora_route(c_engine, nullptr, &c_problem, &args), SMLORA_OK) << smlora_last_error();
    EXPECT_TRUE(routing.sorted_expert_idxs.same_bits(p.routing.sorted_expert_idxs));
    EXPECT_TRUE(routing.sorted_scattered_idxs.same_bits(p.routing.sorted_scattered_idxs));
    EXPECT_TRUE(routing.expert_offsets.same_bits(p.routing.expert_offsets));
    EXPECT_EQ(p.host_routing.rows(), p.M - 1);
}

TEST_F(COperations, Group) {
    const Twice out([&] { return p.rows_of(RowOrder::grouped, problem.K); });
    const GroupArgs args{
        .x = p.x.view(), .gates = p.gates.view(), .routing = p.routing.view(), .out = out.cpp.view(), .workspace = {}};
    group(engine(), {}, problem, args);
    auto c_args = to_c<smlora_group_args>(args);
    c_args.out = to_c(out.c.view());
    ASSERT_EQ(smlora_group(c_engine, nullptr, &c_problem, &c_args), SMLORA_OK) << smlora_last_error();
    out.expect_same();
}

TEST_F(COperations, ArrangeScales) {
    const workload::EncodedWeight weight(
        engine(),
        {.encoding = Encoding::mxfp4, .E = 2, .rows = 70, .columns = 96, .scales = DType::e8m0, .deviation = 1},
        fresh("weight"));
    const auto [E, rows, columns, bytes] = arranged_shape(usual_format(Encoding::mxfp4), 2, 70, 96);
    Buffer from_cpp(engine(), static_cast<std::size_t>(E * rows * columns * bytes));
    Buffer from_c(engine(), from_cpp.bytes());
    const ArrangeScalesArgs args{weight.weight(), {from_cpp.data(), DType::e8m0, {E, rows, columns, bytes}}};
    arrange_scales(engine(), {}, args);
    auto c_args = to_c<smlora_arrange_scales_args>(args);
    c_args.out.data = from_c.data();
    ASSERT_EQ(smlora_arrange_scales(c_engine, nullptr, &c_args), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(std::memcmp(from_c.data(), from_cpp.data(), from_cpp.bytes()), 0);
    smlora_weight arranged = c_args.W;
    arranged.scales = c_args.out;
    smlora_weight_format format{};
    EXPECT_EQ(smlora_format_of(&arranged, &format), SMLORA_OK);
    EXPECT_EQ(format.arranged, 1);
    c_args.W = arranged;
    EXPECT_EQ(smlora_arrange_scales(c_engine, nullptr, &c_args), SMLORA_INVALID_ARGUMENT);
}

TEST_F(COperations, Dequantize) {
    for (const workload::EncodedShape& shape :
         {workload::EncodedShape{.encoding = Encoding::nf4, .E = 3, .rows = 4, .columns = 33, .double_quantized = 2},
          workload::EncodedShape{.encoding = Encoding::nvfp4, .E = 3, .rows = 4, .columns = 32, .parts = 2}}) {
        const workload::EncodedWeight weight(engine(), shape, fresh("weight"));
        Array from_cpp(engine(), DType::bf16, {{shape.E, shape.rows, shape.columns}});
        Array from_c(engine(), DType::bf16, {{shape.E, shape.rows, shape.columns}});
        const DequantizeArgs args{weight.weight(), from_cpp.view()};
        dequantize(engine(), {}, args);
        auto c_args = to_c<smlora_dequantize_args>(args);
        c_args.out = to_c(from_c.view());
        ASSERT_EQ(smlora_dequantize(c_engine, nullptr, &c_args), SMLORA_OK) << smlora_last_error();
        EXPECT_TRUE(from_c.same_bits(from_cpp));
        EXPECT_TRUE(from_c.untouched_outside());
        EXPECT_EQ(smlora_validate_weight(&c_args.W), SMLORA_OK) << smlora_last_error();
        c_args.W.rows += 1;
        EXPECT_EQ(smlora_validate_weight(&c_args.W), SMLORA_INVALID_ARGUMENT);
        EXPECT_EQ(std::string(smlora_last_error()).substr(0, 2), "W.") << smlora_last_error();
    }
    smlora_weight weight{};
    EXPECT_EQ(smlora_validate_weight(&weight), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_validate_weight(nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "weight: expected a pointer, got null");
    for (smlora_encoding encoding = SMLORA_ENCODING_PLAIN; encoding <= SMLORA_ENCODING_INT4; ++encoding) {
        smlora_encoding back = -1;
        EXPECT_EQ(smlora_encoding_from_name(smlora_encoding_name(encoding), &back), SMLORA_OK);
        EXPECT_EQ(back, encoding);
    }
    EXPECT_EQ(smlora_encoding_name(SMLORA_ENCODING_INT4 + 1), nullptr);
    smlora_encoding untouched = 77;
    EXPECT_EQ(smlora_encoding_from_name("nf5", &untouched), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(untouched, 77);
}

TEST_F(COperations, ActivationAndItsGradients) {
    const Array h = random_rows(RowOrder::scattered, 2 * problem.N, "h");
    const Array da = random_rows(RowOrder::scattered, problem.N, "da");
    const Twice a([&] { return p.rows_of(RowOrder::scattered, problem.N); });
    ActivationArgs args;
    args.h = h.view();
    args.a = a.cpp.view();
    args.activation = Activation::geglu;
    activation(engine(), {}, problem, args);
    auto c_args = to_c<smlora_activation_args>(args);
    c_args.a = to_c(a.c.view());
    ASSERT_EQ(smlora_activation(c_engine, nullptr, &c_problem, &c_args), SMLORA_OK) << smlora_last_error();
    a.expect_same();

    const Twice dh([&] { return p.rows_of(RowOrder::scattered, 2 * problem.N); });
    ActivationBackwardArgs backward;
    backward.h = h.view();
    backward.da = da.view();
    backward.dh = dh.cpp.view();
    backward.layout = GateLayout::interleaved;
    activation_backward(engine(), {}, problem, backward);
    auto c_backward = to_c<smlora_activation_backward_args>(backward);
    c_backward.dh = to_c(dh.c.view());
    ASSERT_EQ(smlora_activation_backward(c_engine, nullptr, &c_problem, &c_backward), SMLORA_OK) << smlora_last_error();
    dh.expect_same();

    // As of a caller compiled before there were gates.
    c_backward.struct_size = offsetof(smlora_activation_backward_args, gates);
    EXPECT_EQ(smlora_activation_backward(c_engine, nullptr, &c_problem, &c_backward), SMLORA_OK) << smlora_last_error();

    const Twice dgates([&] { return p.make_dgates(); });
    backward.gates = p.gates.view();
    backward.sorted_scattered_idxs = p.routing.sorted_scattered_idxs.view();
    backward.dgates = dgates.cpp.view();
    activation_backward(engine(), {}, problem, backward);
    c_backward = to_c<smlora_activation_backward_args>(backward);
    c_backward.dgates = to_c(dgates.c.view());
    ASSERT_EQ(smlora_activation_backward(c_engine, nullptr, &c_problem, &c_backward), SMLORA_OK) << smlora_last_error();
    dgates.expect_same();
}

TEST_F(COperations, CombineAndItsGradients) {
    const Array y = random_rows(RowOrder::scattered, problem.N, "y");
    const Twice out([&] { return p.rows_of(RowOrder::token, problem.N); });
    const CombineArgs args{.y = y.view(), .gates = p.gates.view(), .out = out.cpp.view(), .workspace = {}};
    combine(engine(), {}, problem, args);
    auto c_args = to_c<smlora_combine_args>(args);
    c_args.out = to_c(out.c.view());
    ASSERT_EQ(smlora_combine(c_engine, nullptr, &c_problem, &c_args), SMLORA_OK) << smlora_last_error();
    out.expect_same();

    const Twice dy([&] { return p.rows_of(RowOrder::scattered, problem.N); });
    const Twice dgates([&] { return p.make_dgates(); });
    CombineBackwardArgs backward;
    backward.dout = p.dy.view();
    backward.y = y.view();
    backward.gates = p.gates.view();
    backward.dy = dy.cpp.view();
    backward.dgates = dgates.cpp.view();
    combine_backward(engine(), {}, problem, backward);
    auto c_backward = to_c<smlora_combine_backward_args>(backward);
    c_backward.dy = to_c(dy.c.view());
    c_backward.dgates = to_c(dgates.c.view());
    ASSERT_EQ(smlora_combine_backward(c_engine, nullptr, &c_problem, &c_backward), SMLORA_OK) << smlora_last_error();
    dy.expect_same();
    dgates.expect_same();
}

TEST_F(COperations, AWholeStep) {
    const Twice y([&] { return p.make_y(); });
    const Twice xa([&] { return p.make_ranked(); });
    ForwardArgs args = p.forward_args();
    args.y = y.cpp.view();
    args.xa = p.ranked_view(xa.cpp);
    forward(engine(), {}, problem, args);
    auto c_args = to_c<smlora_forward_args>(args);
    c_args.y = to_c(y.c.view());
    c_args.xa = to_c(p.ranked_view(xa.c));
    ASSERT_EQ(smlora_forward(c_engine, nullptr, &c_problem, &c_args), SMLORA_OK) << smlora_last_error();
    y.expect_same();
    xa.expect_same();

    const Twice dx([&] { return p.make_dx(); });
    const Twice yb([&] { return p.make_ranked(); });
    const Twice dgates([&] { return p.make_dgates(); });
    BackwardInputArgs input = p.backward_input_args();
    input.dx = dx.cpp.view();
    input.yb = p.ranked_view(yb.cpp);
    input.dgates = dgates.cpp.view();
    input.x = p.x.view();
    input.bias = p.bias.view();
    backward_input(engine(), {}, problem, input);
    auto c_input = to_c<smlora_backward_input_args>(input);
    c_input.dx = to_c(dx.c.view());
    c_input.yb = to_c(p.ranked_view(yb.c));
    c_input.dgates = to_c(dgates.c.view());
    ASSERT_EQ(smlora_backward_input(c_engine, nullptr, &c_problem, &c_input), SMLORA_OK) << smlora_last_error();
    dx.expect_same();
    yb.expect_same();
    dgates.expect_same();

    const Twice dA([&] { return p.make_dA(); });
    const Twice dB([&] { return p.make_dB(); });
    BackwardLoraArgs lora = p.backward_lora_args();
    lora.xa = args.xa;
    lora.yb = input.yb;
    lora.dA = dA.cpp.view();
    lora.dB = dB.cpp.view();
    backward_lora(engine(), {}, problem, lora);
    auto c_lora = to_c<smlora_backward_lora_args>(lora);
    c_lora.xa = c_args.xa;
    c_lora.yb = c_input.yb;
    c_lora.dA = to_c(dA.c.view());
    c_lora.dB = to_c(dB.c.view());
    ASSERT_EQ(smlora_backward_lora(c_engine, nullptr, &c_problem, &c_lora), SMLORA_OK) << smlora_last_error();
    dA.expect_same();
    dB.expect_same();
}

TEST_F(COperations, Scatter2ScatterLeavesTheAdapterOut) {
    const Twice y([&] { return p.make_y(); });
    ForwardArgs args = p.forward_args();
    args.A = {};
    args.B = {};
    args.y = y.cpp.view();
    scatter2scatter(engine(), {}, problem, args);
    auto c_args = to_c<smlora_forward_args>(args);
    c_args.y = to_c(y.c.view());
    ASSERT_EQ(smlora_scatter2scatter(c_engine, nullptr, &c_problem, &c_args), SMLORA_OK) << smlora_last_error();
    y.expect_same();
}

TEST_F(COperations, QuantisedWeightsTakeThePlaceOfW) {
    Case quantised = spec;
    quantised.problem.weights = usual_format(Encoding::int8);
    const workload::Projection q{engine(), quantised, fresh, top_idx};
    auto c_quantised = to_c<smlora_problem>(q.problem);
    auto weight = to_c(q.weight(), smlora_weight{});
    weight.block = 7;  // which int8 does not look at
    ASSERT_EQ(smlora_format_of(&weight, &c_quantised.weights), SMLORA_OK) << smlora_last_error();
    const Twice y([&] { return q.make_y(); });
    ForwardArgs args = q.forward_args();
    args.y = y.cpp.view();
    forward(engine(), {}, q.problem, args);
    auto c_args = to_c<smlora_forward_args>(args);
    c_args.W = {};
    c_args.quantized = &weight;
    c_args.y = to_c(y.c.view());
    ASSERT_EQ(smlora_forward(c_engine, nullptr, &c_quantised, &c_args), SMLORA_OK) << smlora_last_error();
    y.expect_same();

    const Twice dx([&] { return q.make_dx(); });
    BackwardInputArgs input = q.backward_input_args();
    input.dx = dx.cpp.view();
    backward_input(engine(), {}, q.problem, input);
    auto c_input = to_c<smlora_backward_input_args>(input);
    c_input.W = {};
    c_input.quantized = &weight;
    c_input.dx = to_c(dx.c.view());
    ASSERT_EQ(smlora_backward_input(c_engine, nullptr, &c_quantised, &c_input), SMLORA_OK) << smlora_last_error();
    dx.expect_same();

    c_args.W = to_c(q.W.view());
    EXPECT_EQ(smlora_forward(c_engine, nullptr, &c_quantised, &c_args), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "W: expected none, as args.quantized is given; got a tensor");

    smlora_weight_format format{};
    ASSERT_EQ(smlora_usual_format(SMLORA_ENCODING_INT8, &format), SMLORA_OK);
    EXPECT_EQ(format.encoding, SMLORA_ENCODING_INT8);
    EXPECT_EQ(format.parts, 1);
    EXPECT_EQ(smlora_usual_format(9, &format), SMLORA_INVALID_ARGUMENT);
}

TEST_F(COperations, WorkspaceQueriesAreThoseOfCpp) {
    std::size_t bytes = 1;
    ASSERT_EQ(smlora_route_workspace(c_engine, &c_problem, p.T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, route_workspace(engine(), problem, p.T));
    ASSERT_EQ(smlora_forward_workspace(c_engine, &c_problem, p.T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, forward_workspace(engine(), problem, p.T));
    ASSERT_EQ(smlora_backward_input_workspace(c_engine, &c_problem, p.T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, backward_input_workspace(engine(), problem, p.T));
    ASSERT_EQ(smlora_backward_lora_workspace(c_engine, &c_problem, p.T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, backward_lora_workspace(engine(), problem, p.T));
    EXPECT_EQ(smlora_forward_workspace(c_engine, &c_problem, p.T, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "bytes: expected a pointer, got null");
}

TEST_F(COperations, AWrongArgumentIsNamedAndNothingIsWritten) {
    const Twice y([&] { return p.make_y(); });
    ForwardArgs args = p.forward_args();
    args.y = y.c.view();
    auto c_args = to_c<smlora_forward_args>(args);
    --c_args.A.shape[2];
    EXPECT_EQ(smlora_forward(c_engine, nullptr, &c_problem, &c_args), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(std::string(smlora_last_error()).rfind("A: ", 0), 0U) << smlora_last_error();
    EXPECT_TRUE(y.c.same_bits(y.cpp));
    EXPECT_EQ(smlora_forward(c_engine, nullptr, &c_problem, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_forward(c_engine, nullptr, nullptr, &c_args), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_forward(nullptr, nullptr, &c_problem, &c_args), SMLORA_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace smlora::capi::test
