// Each operation through C gives what it gives through C++, bit for bit, on the CPU backend.
#include <smlora/smlora.h>
#include <smlora/smlora.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace smlora;

constexpr std::int64_t E = 5, K = 24, N = 40, R = 3, top_k = 2, T = 9, M = T * top_k, padded = 8;
constexpr float poison = -777.0F;

std::vector<float> random_values(std::int64_t count, unsigned seed) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = uniform(generator);
    return values;
}

std::vector<float> poisoned(std::int64_t count) { return std::vector<float>(static_cast<std::size_t>(count), poison); }

smlora_tensor c_tensor(void* data, smlora_dtype dtype, std::vector<std::int64_t> shape) {
    smlora_tensor tensor{};
    EXPECT_EQ(smlora_tensor_init(&tensor, data, dtype, static_cast<std::int32_t>(shape.size()), shape.data(), nullptr),
              SMLORA_OK);
    return tensor;
}

smlora_tensor c_floats(std::vector<float>& values, std::vector<std::int64_t> shape) {
    return c_tensor(values.data(), SMLORA_FP32, std::move(shape));
}

smlora_tensor c_indices(std::vector<std::int32_t>& values) {
    return c_tensor(values.data(), SMLORA_INT32, {static_cast<std::int64_t>(values.size())});
}

Tensor floats(std::vector<float>& values, std::initializer_list<std::int64_t> shape) {
    return {values.data(), DType::fp32, shape};
}

Tensor indices(std::vector<std::int32_t>& values) {
    return {values.data(), DType::int32, {static_cast<std::int64_t>(values.size())}};
}

/// One projection with gates and bias, both as C and as C++ see it.
class COperations : public ::testing::Test {
 protected:
    COperations() {
        std::mt19937 generator(7);
        for (std::int32_t& index : top_idx) index = static_cast<std::int32_t>(generator() % E);
        top_idx[3] = -1;

        smlora_engine_options options;
        smlora_engine_options_init(&options, sizeof options);
        options.backend = SMLORA_BACKEND_CPU;
        options.threads = 2;
        EXPECT_EQ(smlora_engine_create(&options, &c_engine), SMLORA_OK) << smlora_last_error();

        smlora_problem_init(&c_problem, sizeof c_problem);
        c_problem.E = E;
        c_problem.K = K;
        c_problem.N = N;
        c_problem.R = R;
        c_problem.top_k = top_k;
        c_problem.dtype = SMLORA_FP32;
        c_problem.adapter_dtype = SMLORA_FP32;
        c_problem.y_rows = SMLORA_ROWS_TOKEN;
        c_problem.bias = 1;
        c_problem.gates = 1;

        problem.E = E;
        problem.K = K;
        problem.N = N;
        problem.R = R;
        problem.top_k = top_k;
        problem.dtype = DType::fp32;
        problem.adapter_dtype = DType::fp32;
        problem.y_rows = RowOrder::token;
        problem.bias = true;
        problem.gates = true;

        RouteArgs args;
        args.top_idx = Tensor(top_idx.data(), DType::int32, {T, top_k});
        args.routing = routing();
        route(engine, Stream{}, problem, args);
    }

    ~COperations() override { smlora_engine_destroy(c_engine); }

    Routing routing() { return {indices(experts), indices(scattered), indices(offsets)}; }
    smlora_routing c_routing() { return {c_indices(experts), c_indices(scattered), c_indices(offsets)}; }

    EngineOptions cpu_options() {
        EngineOptions options;
        options.backend = Backend::cpu;
        options.threads = 2;
        return options;
    }

    Engine engine{cpu_options()};
    smlora_engine* c_engine = nullptr;
    Problem problem;
    smlora_problem c_problem{};
    std::vector<std::int32_t> top_idx = std::vector<std::int32_t>(M);
    std::vector<std::int32_t> experts = std::vector<std::int32_t>(M), scattered = std::vector<std::int32_t>(M),
                              offsets = std::vector<std::int32_t>(E);
    std::vector<float> x = random_values(T * K, 1), W = random_values(E * K * N, 2), A = random_values(E * R * K, 3),
                       B = random_values(E * N * R, 4), bias = random_values(E * N, 5), gates = random_values(M, 6),
                       dy = random_values(T * N, 7);
    float scaling = 0.75F;
};

TEST_F(COperations, Route) {
    std::vector<std::int32_t> c_experts(M, -5), c_scattered(M, -5), c_offsets(E, -5);
    smlora_route_args args;
    smlora_route_args_init(&args, sizeof args);
    args.top_idx = c_tensor(top_idx.data(), SMLORA_INT32, {T, top_k});
    args.routing = {c_indices(c_experts), c_indices(c_scattered), c_indices(c_offsets)};
    ASSERT_EQ(smlora_route(c_engine, nullptr, &c_problem, &args), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(c_experts, experts);
    EXPECT_EQ(c_scattered, scattered);
    EXPECT_EQ(c_offsets, offsets);
    EXPECT_EQ(c_offsets.back(), M - 1);
}

TEST_F(COperations, Group) {
    std::vector<float> expected = poisoned(M * K), got = poisoned(M * K);
    GroupArgs cpp;
    cpp.x = floats(x, {T, K});
    cpp.gates = floats(gates, {T, top_k});
    cpp.routing = routing();
    cpp.out = floats(expected, {M, K});
    group(engine, Stream{}, problem, cpp);
    smlora_group_args args;
    smlora_group_args_init(&args, sizeof args);
    args.x = c_floats(x, {T, K});
    args.gates = c_floats(gates, {T, top_k});
    args.routing = c_routing();
    args.out = c_floats(got, {M, K});
    ASSERT_EQ(smlora_group(c_engine, nullptr, &c_problem, &args), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(got, expected);
    EXPECT_NE(got.front(), poison);
}

TEST_F(COperations, ActivationAndItsGradients) {
    std::vector<float> h = random_values(M * 2 * N, 9), da = random_values(M * N, 10);
    std::vector<float> expected = poisoned(M * N), got = poisoned(M * N);
    ActivationArgs cpp;
    cpp.h = floats(h, {M, 2 * N});
    cpp.a = floats(expected, {M, N});
    cpp.activation = Activation::geglu;
    activation(engine, Stream{}, problem, cpp);
    smlora_activation_args args;
    smlora_activation_args_init(&args, sizeof args);
    args.h = c_floats(h, {M, 2 * N});
    args.a = c_floats(got, {M, N});
    args.activation = SMLORA_GEGLU;
    ASSERT_EQ(smlora_activation(c_engine, nullptr, &c_problem, &args), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(got, expected);
    EXPECT_NE(got.front(), poison);

    std::vector<float> expected_dh = poisoned(M * 2 * N), got_dh = poisoned(M * 2 * N);
    ActivationBackwardArgs cpp_backward;
    cpp_backward.h = floats(h, {M, 2 * N});
    cpp_backward.da = floats(da, {M, N});
    cpp_backward.dh = floats(expected_dh, {M, 2 * N});
    cpp_backward.layout = GateLayout::interleaved;
    activation_backward(engine, Stream{}, problem, cpp_backward);
    smlora_activation_backward_args backward;
    smlora_activation_backward_args_init(&backward, sizeof backward);
    backward.h = c_floats(h, {M, 2 * N});
    backward.da = c_floats(da, {M, N});
    backward.dh = c_floats(got_dh, {M, 2 * N});
    backward.layout = SMLORA_GATE_INTERLEAVED;
    ASSERT_EQ(smlora_activation_backward(c_engine, nullptr, &c_problem, &backward), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(got_dh, expected_dh);
    EXPECT_NE(got_dh.front(), poison);
}

TEST_F(COperations, CombineAndItsGradients) {
    std::vector<float> y = random_values(M * N, 8);
    std::vector<float> expected = poisoned(T * N), got = poisoned(T * N);
    CombineArgs cpp;
    cpp.y = floats(y, {M, N});
    cpp.gates = floats(gates, {T, top_k});
    cpp.out = floats(expected, {T, N});
    combine(engine, Stream{}, problem, cpp);
    smlora_combine_args args;
    smlora_combine_args_init(&args, sizeof args);
    args.y = c_floats(y, {M, N});
    args.gates = c_floats(gates, {T, top_k});
    args.out = c_floats(got, {T, N});
    ASSERT_EQ(smlora_combine(c_engine, nullptr, &c_problem, &args), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(got, expected);
    EXPECT_NE(got.front(), poison);

    std::vector<float> expected_dy = poisoned(M * N), got_dy = poisoned(M * N);
    std::vector<float> expected_dgates = poisoned(M), got_dgates = poisoned(M);
    CombineBackwardArgs cpp_backward;
    cpp_backward.dout = floats(dy, {T, N});
    cpp_backward.y = floats(y, {M, N});
    cpp_backward.gates = floats(gates, {T, top_k});
    cpp_backward.dy = floats(expected_dy, {M, N});
    cpp_backward.dgates = floats(expected_dgates, {T, top_k});
    combine_backward(engine, Stream{}, problem, cpp_backward);
    smlora_combine_backward_args backward;
    smlora_combine_backward_args_init(&backward, sizeof backward);
    backward.dout = c_floats(dy, {T, N});
    backward.y = c_floats(y, {M, N});
    backward.gates = c_floats(gates, {T, top_k});
    backward.dy = c_floats(got_dy, {M, N});
    backward.dgates = c_floats(got_dgates, {T, top_k});
    ASSERT_EQ(smlora_combine_backward(c_engine, nullptr, &c_problem, &backward), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(got_dy, expected_dy);
    EXPECT_EQ(got_dgates, expected_dgates);
    EXPECT_NE(got_dy.front(), poison);
    EXPECT_NE(got_dgates.front(), poison);
}

TEST_F(COperations, AWholeStep) {
    std::vector<float> y = poisoned(T * N), c_y = y, xa = poisoned(M * padded), c_xa = xa;
    ForwardArgs cpp;
    cpp.x = floats(x, {T, K});
    cpp.W = floats(W, {E, K, N});
    cpp.A = floats(A, {E, R, K});
    cpp.B = floats(B, {E, N, R});
    cpp.bias = floats(bias, {E, N});
    cpp.gates = floats(gates, {T, top_k});
    cpp.routing = routing();
    cpp.scaling = scaling;
    cpp.y = floats(y, {T, N});
    cpp.xa = Tensor(xa.data(), DType::fp32, {M, R}, {padded, 1});
    forward(engine, Stream{}, problem, cpp);

    smlora_forward_args args;
    smlora_forward_args_init(&args, sizeof args);
    args.x = c_floats(x, {T, K});
    args.W = c_floats(W, {E, K, N});
    args.A = c_floats(A, {E, R, K});
    args.B = c_floats(B, {E, N, R});
    args.bias = c_floats(bias, {E, N});
    args.gates = c_floats(gates, {T, top_k});
    args.routing = c_routing();
    args.scaling = scaling;
    args.y = c_floats(c_y, {T, N});
    args.xa = c_floats(c_xa, {M, R});
    args.xa.strides[0] = smlora_padded_rank(R);
    ASSERT_EQ(smlora_forward(c_engine, nullptr, &c_problem, &args), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(c_y, y);
    EXPECT_EQ(c_xa, xa);
    EXPECT_NE(c_y.front(), poison);
    EXPECT_NE(c_xa.front(), poison);

    std::vector<float> dx = poisoned(T * K), c_dx = dx, yb = poisoned(M * padded), c_yb = yb, dgates = poisoned(M),
                       c_dgates = dgates;
    BackwardInputArgs cpp_input;
    cpp_input.dy = floats(dy, {T, N});
    cpp_input.W = cpp.W;
    cpp_input.A = cpp.A;
    cpp_input.B = cpp.B;
    cpp_input.gates = cpp.gates;
    cpp_input.routing = cpp.routing;
    cpp_input.scaling = scaling;
    cpp_input.dx = floats(dx, {T, K});
    cpp_input.yb = Tensor(yb.data(), DType::fp32, {M, R}, {padded, 1});
    cpp_input.dgates = floats(dgates, {T, top_k});
    cpp_input.x = cpp.x;
    cpp_input.bias = cpp.bias;
    backward_input(engine, Stream{}, problem, cpp_input);

    smlora_backward_input_args input;
    smlora_backward_input_args_init(&input, sizeof input);
    input.dy = c_floats(dy, {T, N});
    input.W = args.W;
    input.A = args.A;
    input.B = args.B;
    input.gates = args.gates;
    input.routing = args.routing;
    input.scaling = scaling;
    input.dx = c_floats(c_dx, {T, K});
    input.yb = c_floats(c_yb, {M, R});
    input.yb.strides[0] = smlora_padded_rank(R);
    input.dgates = c_floats(c_dgates, {T, top_k});
    input.x = args.x;
    input.bias = args.bias;
    ASSERT_EQ(smlora_backward_input(c_engine, nullptr, &c_problem, &input), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(c_dx, dx);
    EXPECT_EQ(c_yb, yb);
    EXPECT_EQ(c_dgates, dgates);
    EXPECT_NE(c_dx.front(), poison);
    EXPECT_NE(c_yb.front(), poison);
    EXPECT_NE(c_dgates.front(), poison);

    std::vector<float> dA = poisoned(E * R * K), c_dA = dA, dB = poisoned(E * N * R), c_dB = dB;
    BackwardLoraArgs cpp_lora;
    cpp_lora.x = cpp.x;
    cpp_lora.dy = cpp_input.dy;
    cpp_lora.A = cpp.A;
    cpp_lora.B = cpp.B;
    cpp_lora.gates = cpp.gates;
    cpp_lora.routing = cpp.routing;
    cpp_lora.scaling = scaling;
    cpp_lora.xa = cpp.xa;
    cpp_lora.yb = cpp_input.yb;
    cpp_lora.dA = floats(dA, {E, R, K});
    cpp_lora.dB = floats(dB, {E, N, R});
    backward_lora(engine, Stream{}, problem, cpp_lora);

    smlora_backward_lora_args lora;
    smlora_backward_lora_args_init(&lora, sizeof lora);
    lora.x = args.x;
    lora.dy = input.dy;
    lora.A = args.A;
    lora.B = args.B;
    lora.gates = args.gates;
    lora.routing = args.routing;
    lora.scaling = scaling;
    lora.xa = args.xa;
    lora.yb = input.yb;
    lora.dA = c_floats(c_dA, {E, R, K});
    lora.dB = c_floats(c_dB, {E, N, R});
    ASSERT_EQ(smlora_backward_lora(c_engine, nullptr, &c_problem, &lora), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(c_dA, dA);
    EXPECT_EQ(c_dB, dB);
    EXPECT_NE(c_dA.front(), poison);
    EXPECT_NE(c_dB.front(), poison);
}

TEST_F(COperations, Scatter2ScatterLeavesTheAdapterOut) {
    std::vector<float> y = poisoned(T * N), c_y = y;
    ForwardArgs cpp;
    cpp.x = floats(x, {T, K});
    cpp.W = floats(W, {E, K, N});
    cpp.bias = floats(bias, {E, N});
    cpp.gates = floats(gates, {T, top_k});
    cpp.routing = routing();
    cpp.y = floats(y, {T, N});
    scatter2scatter(engine, Stream{}, problem, cpp);
    smlora_forward_args args;
    smlora_forward_args_init(&args, sizeof args);
    args.x = c_floats(x, {T, K});
    args.W = c_floats(W, {E, K, N});
    args.bias = c_floats(bias, {E, N});
    args.gates = c_floats(gates, {T, top_k});
    args.routing = c_routing();
    args.y = c_floats(c_y, {T, N});
    ASSERT_EQ(smlora_scatter2scatter(c_engine, nullptr, &c_problem, &args), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(c_y, y);
    EXPECT_NE(c_y.front(), poison);
}

TEST_F(COperations, WorkspaceQueriesAreThoseOfCpp) {
    std::size_t bytes = 1;
    ASSERT_EQ(smlora_route_workspace(c_engine, &c_problem, T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, route_workspace(engine, problem, T));
    ASSERT_EQ(smlora_forward_workspace(c_engine, &c_problem, T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, forward_workspace(engine, problem, T));
    ASSERT_EQ(smlora_backward_input_workspace(c_engine, &c_problem, T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, backward_input_workspace(engine, problem, T));
    ASSERT_EQ(smlora_backward_lora_workspace(c_engine, &c_problem, T, &bytes), SMLORA_OK) << smlora_last_error();
    EXPECT_EQ(bytes, backward_lora_workspace(engine, problem, T));
    EXPECT_EQ(smlora_forward_workspace(c_engine, &c_problem, T, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "bytes: expected a pointer, got null");
}

TEST_F(COperations, AWrongArgumentIsNamedAndNothingIsWritten) {
    std::vector<float> y = poisoned(T * N);
    smlora_forward_args args;
    smlora_forward_args_init(&args, sizeof args);
    args.x = c_floats(x, {T, K});
    args.W = c_floats(W, {E, K, N});
    args.A = c_floats(A, {E, R, K - 1});
    args.B = c_floats(B, {E, N, R});
    args.bias = c_floats(bias, {E, N});
    args.gates = c_floats(gates, {T, top_k});
    args.routing = c_routing();
    args.y = c_floats(y, {T, N});
    EXPECT_EQ(smlora_forward(c_engine, nullptr, &c_problem, &args), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(std::string(smlora_last_error()).rfind("A: ", 0), 0u) << smlora_last_error();
    EXPECT_EQ(y, poisoned(T * N));
    EXPECT_EQ(smlora_forward(c_engine, nullptr, &c_problem, nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_forward(c_engine, nullptr, nullptr, &args), SMLORA_INVALID_ARGUMENT);
    EXPECT_EQ(smlora_forward(nullptr, nullptr, &c_problem, &args), SMLORA_INVALID_ARGUMENT);
}

}  // namespace
