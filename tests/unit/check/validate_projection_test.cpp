// Every check of the arguments of forward, backward_input and backward_lora: a call that is sound but for one thing,
// and what is said of it.
#include "unit/check/validate_calls.hpp"

namespace smlora::check::test {
namespace {

/// What forward and backward_input check alike.
template <class Call>
void expect_weight_and_adapter_checked() {
    expect_problem_checked<Call>();
    expect_scaling_checked<Call>();
    expect_routing_checked<Call>();
    expect_gates_checked<Call>();
    expect_tensor_checked<Call>(
        "W", [](Call& c) -> Tensor& { return c.args.W.codes; }, "[E, K, N] = [4, 24, 40]", "fp16");
    expect_tensor_checked<Call>(
        "A", [](Call& c) -> Tensor& { return c.args.A; }, "[E, R, K] = [4, 5, 24]", "fp32");
    expect_tensor_checked<Call>(
        "B", [](Call& c) -> Tensor& { return c.args.B; }, "[E, N, R] = [4, 40, 5]", "fp32");
    expect_tensor_checked<Call>(
        "bias", [](Call& c) -> Tensor& { return c.args.bias; }, "[E, N] = [4, 40]", "fp16");
    expect_tensor_checked<Call>(
        "gates", [](Call& c) -> Tensor& { return c.args.gates; }, "[T, top_k] = [3, 2]", "fp32");
}

TEST(ValidateForward, TakesWhatIsSound) {
    expect_taken<Forward>({{"everything", [](Forward&) {}},
                           {"without xa", [](Forward& c) { c.args.xa = {}; }},
                           {"without sorted_expert_idxs", [](Forward& c) { c.args.routing.sorted_expert_idxs = {}; }},
                           {"scattered x and grouped y without gates",
                            [](Forward& c) {
                                c.problem.x_rows = RowOrder::scattered;
                                c.problem.y_rows = RowOrder::grouped;
                                c.problem.gates = false;
                                c.args.gates = {};
                                c.args.x = tensor(DType::fp16, {M, K});
                                c.args.y = tensor(DType::fp16, {M, N});
                            }},
                           {"W of the other layout with a gap between experts",
                            [](Forward& c) {
                                c.problem.weight_layout = WeightLayout::enk;
                                c.args.W = strided(DType::fp16, {E, N, K}, {N * K + 8, K, 1});
                            }},
                           {"one W for all experts", [](Forward& c) { c.args.W.codes.strides[0] = 0; }},
                           {"A and B of column e * R + r",
                            [](Forward& c) {
                                c.args.B = strided(DType::fp32, {E, N, R}, {R, E * R, 1});
                            }},
                           {"B of column r * E + e",
                            [](Forward& c) {
                                c.args.B = strided(DType::fp32, {E, N, R}, {1, E * R, E});
                            }},
                           {"one A for all experts", [](Forward& c) { c.args.A.strides[0] = 0; }},
                           {"no adapter",
                            [](Forward& c) {
                                c.problem.R = 0;
                                c.args.A = c.args.B = c.args.xa = {};
                            }},
                           {"no bias", [](Forward& c) {
                                c.problem.bias = false;
                                c.args.bias = {};
                            }}});
    // The stride of an extent of 1 means nothing, as in every array library.
    expect_taken<Forward>({{"one token",
                            [](Forward& c) {
                                c.problem.top_k = 1;
                                c.args.x = strided(DType::fp16, {1, K}, {1, 1});
                                c.args.y = strided(DType::fp16, {1, N}, {-7, 1});
                                c.args.xa = strided(DType::fp16, {1, R}, {8, 1});
                                c.args.gates = strided(DType::fp32, {1, 1}, {99, 99});
                                c.args.routing.sorted_expert_idxs = tensor(DType::int64, {1});
                                c.args.routing.sorted_scattered_idxs = strided(DType::int64, {1}, {5});
                            }}},
                          1);
    expect_taken<Forward>({{"no token",
                            [](Forward& c) {
                                c.args.x = {nullptr, DType::fp16, {0, K}};
                                c.args.y = {nullptr, DType::fp16, {0, N}};
                                c.args.xa = {nullptr, DType::fp16, {0, R}};
                                c.args.gates = {nullptr, DType::fp32, {0, top_k}};
                                c.args.routing.sorted_expert_idxs = {nullptr, DType::int64, {0}};
                                c.args.routing.sorted_scattered_idxs = {nullptr, DType::int64, {0}};
                            }}},
                          0);
}

TEST(ValidateForward, NamesWhatIsWrong) {
    using Call = Forward;
    expect_weight_and_adapter_checked<Call>();
    expect_first_rows_checked<Call>("x", [](Call& c) -> Tensor& { return c.args.x; });
    expect_rows_checked<Call>(
        "y", [](Call& c) -> Tensor& { return c.args.y; }, "[T, N] = [3, 40]");
    expect_tensor_checked<Call>(
        "xa", [](Call& c) -> Tensor& { return c.args.xa; }, "[M, R] = [6, 5]", "fp16", false);
    expect_refused<Call>(
        {{"x: expected [T, K] = [3, 24], got [3, 23]", [](Call& c) { c.args.x.shape[1] = 23; }},
         {"x: expected [M, columns] with M = T * top_k, a multiple of 2, got [3, 24]",
          [](Call& c) { c.problem.x_rows = RowOrder::grouped; }},
         {"x: expected contiguous columns, got strides [48, 2] for shape [3, 24]",
          [](Call& c) {
              c.args.x = strided(DType::fp16, {T, K}, {2 * K, 2});
          }},
         {"x: expected memory for shape [3, 24], got a null pointer",
          [](Call& c) { c.args.x = without_memory(c.args.x); }},
         {"y: expected [M, N] = [6, 40], got [3, 40]",
          [](Call& c) {
              c.problem.y_rows = RowOrder::grouped;
              c.problem.gates = false;
              c.args.gates = {};
          }},
         {"W: expected [E, N, K] = [4, 40, 24], got [4, 24, 40]",
          [](Call& c) { c.problem.weight_layout = WeightLayout::enk; }},
         {"W: expected contiguous matrices, got strides [960, 1, 24] for shape [4, 24, 40]",
          [](Call& c) {
              c.args.W = strided(DType::fp16, {E, K, N}, {K * N, 1, K});
          }},
         {"W: expected contiguous matrices, got strides [1008, 42, 1] for shape [4, 24, 40]",
          [](Call& c) {
              c.args.W = strided(DType::fp16, {E, K, N}, {K * 42, 42, 1});
          }},
         {"W: expected strides of 0 or more, got strides [-960, 40, 1] for shape [4, 24, 40]",
          [](Call& c) { c.args.W.codes.strides[0] = -960; }},
         {"A: expected strides of 0 or more, got strides [120, -24, 1] for shape [4, 5, 24]",
          [](Call& c) { c.args.A.strides[1] = -24; }},
         {"B: expected less than 2^63 bytes, got strides [200, 9223372036854775807, 1] for shape [4, 40, 5]",
          [](Call& c) { c.args.B.strides[1] = std::numeric_limits<std::int64_t>::max(); }},
         {"A: expected not to be given with problem.R = 0, got shape [4, 5, 24]", [](Call& c) { c.problem.R = 0; }},
         {"B: expected not to be given with problem.R = 0, got shape [4, 40, 5]",
          [](Call& c) {
              c.problem.R = 0;
              c.args.A = {};
          }},
         {"xa: expected not to be given with problem.R = 0, got shape [6, 5]",
          [](Call& c) {
              c.problem.R = 0;
              c.args.A = c.args.B = {};
          }},
         {"bias: expected not to be given with problem.bias = false, got shape [4, 40]",
          [](Call& c) { c.problem.bias = false; }},
         {"bias: expected a contiguous tensor, got strides [41, 1] for shape [4, 40]",
          [](Call& c) { c.args.bias.strides[0] = 41; }},
         {"gates: expected not to be given with problem.gates = false, got shape [3, 2]",
          [](Call& c) { c.problem.gates = false; }},
         {"xa: expected strides {padded_rank, 1} = [8, 1], got [5, 1]",
          [](Call& c) {
              c.args.xa = tensor(DType::fp16, {M, R});
          }},
         {"xa: expected strides {padded_rank, 1} = [8, 1], got [8, 2]", [](Call& c) { c.args.xa.strides[1] = 2; }}});
}

TEST(ValidateForward, AsksForThePaddingOfASingleRankRow) {
    Forward call;
    call.problem.top_k = 1;
    call.args.x = tensor(DType::fp16, {1, K});
    call.args.y = tensor(DType::fp16, {1, N});
    call.args.gates = tensor(DType::fp32, {1, 1});
    call.args.routing = {{}, tensor(DType::int64, {1}), tensor(DType::int64, {E})};
    call.args.xa = tensor(DType::fp16, {1, R});
    EXPECT_THROW(call.validate(), Error);
    call.args.xa.strides[0] = 8;
    EXPECT_EQ(call.validate(), 1);
}

TEST(ValidateBackwardInput, TakesWhatIsSound) {
    using Call = BackwardInput;
    expect_taken<Call>(
        {{"everything", [](Call&) {}},
         {"without dgates and what only they need", [](Call& c) { c.args.dgates = c.args.x = c.args.bias = {}; }},
         {"without dgates, with what only they need", [](Call& c) { c.args.dgates = {}; }},
         {"without yb", [](Call& c) { c.args.yb = {}; }},
         {"no adapter",
          [](Call& c) {
              c.problem.R = 0;
              c.args.A = c.args.B = c.args.yb = {};
          }},
         {"no bias",
          [](Call& c) {
              c.problem.bias = false;
              c.args.bias = {};
          }},
         {"grouped dx and x",
          [](Call& c) {
              c.problem.x_rows = RowOrder::grouped;
              c.args.dx = tensor(DType::fp16, {M, K});
              c.args.x = tensor(DType::fp16, {M, K});
          }},
         {"dx before the gates",
          [](Call& c) {
              c.args.before_gates = true;
              c.problem.bias = false;
              c.args.gates = c.args.dgates = c.args.x = c.args.bias = {};
              c.problem.x_rows = RowOrder::scattered;
              c.args.dx = tensor(DType::fp16, {M, K});
          }},
         {"grouped dy without gates", [](Call& c) {
              c.problem.y_rows = RowOrder::grouped;
              c.problem.gates = false;
              c.args.gates = c.args.dgates = {};
              c.args.dy = tensor(DType::fp16, {M, N});
          }}});
}

void ask_before_gates(BackwardInput& c) {
    c.args.before_gates = true;
    c.problem.bias = false;
    c.args.bias = {};
    c.problem.x_rows = RowOrder::grouped;
    c.args.dx = tensor(DType::fp16, {M, K});
    c.args.x = tensor(DType::fp16, {M, K});
}

TEST(ValidateBackwardInput, NamesWhatIsWrong) {
    using Call = BackwardInput;
    expect_weight_and_adapter_checked<Call>();
    expect_first_rows_checked<Call>("dy", [](Call& c) -> Tensor& { return c.args.dy; });
    expect_rows_checked<Call>(
        "dx", [](Call& c) -> Tensor& { return c.args.dx; }, "[T, K] = [3, 24]");
    expect_tensor_checked<Call>(
        "yb", [](Call& c) -> Tensor& { return c.args.yb; }, "[M, R] = [6, 5]", "fp16", false);
    expect_tensor_checked<Call>(
        "dgates", [](Call& c) -> Tensor& { return c.args.dgates; }, "[T, top_k] = [3, 2]", "fp32", false);
    expect_tensor_checked<Call>(
        "x", [](Call& c) -> Tensor& { return c.args.x; }, "[T, K] = [3, 24]", "fp16", false);
    expect_refused<Call>({{"before_gates: expected false unless problem.gates is true and problem.x_rows is grouped or "
                           "scattered, got true "
                           "with gates = true and x_rows = token",
                           [](Call& c) { c.args.before_gates = true; }},
                          {"before_gates: expected false unless problem.gates is true and problem.x_rows is grouped or "
                           "scattered, got true "
                           "with gates = false and x_rows = grouped",
                           [](Call& c) {
                               ask_before_gates(c);
                               c.problem.gates = false;
                           }},
                          {"before_gates: expected false with problem.bias, as the bias has a part in the gradient of "
                           "the gates; got true",
                           [](Call& c) {
                               ask_before_gates(c);
                               c.problem.bias = true;
                           }},
                          {"gates: expected not to be given with before_gates, got shape [3, 2]", ask_before_gates},
                          {"dgates: expected not to be given with before_gates, got shape [3, 2]", [](Call& c) {
                               ask_before_gates(c);
                               c.args.gates = {};
                           }}});
    expect_refused<Call>({{"dy: expected [T, N] = [3, 40], got [3, 24]",
                           [](Call& c) {
                               c.args.dy = tensor(DType::fp16, {T, K});
                           }},
                          {"x: expected to be given to compute dgates, not given", [](Call& c) { c.args.x = {}; }},
                          {"x: expected contiguous columns, got strides [48, 2] for shape [3, 24]",
                           [](Call& c) {
                               c.args.x = strided(DType::fp16, {T, K}, {2 * K, 2});
                           }},
                          {"bias: expected not to be given with problem.bias = false, got shape [4, 40]",
                           [](Call& c) { c.problem.bias = false; }},
                          {"dgates: expected not to be given with problem.gates = false, got shape [3, 2]",
                           [](Call& c) {
                               c.problem.gates = false;
                               c.args.gates = {};
                           }},
                          {"gates: expected not to be given with problem.gates = false, got shape [3, 2]",
                           [](Call& c) { c.problem.gates = false; }},
                          {"dgates: expected a contiguous tensor, got strides [1, 3] for shape [3, 2]",
                           [](Call& c) {
                               c.args.dgates = strided(DType::fp32, {T, top_k}, {1, T});
                           }},
                          {"yb: expected strides {padded_rank, 1} = [8, 1], got [5, 1]",
                           [](Call& c) {
                               c.args.yb = tensor(DType::fp16, {M, R});
                           }},
                          {"yb: expected not to be given with problem.R = 0, got shape [6, 5]", [](Call& c) {
                               c.problem.R = 0;
                               c.args.A = c.args.B = {};
                           }}});
}

TEST(ValidateBackwardLora, TakesWhatIsSound) {
    using Call = BackwardLora;
    expect_taken<Call>({{"everything", [](Call&) {}},
                        {"with xa and yb, without A and B", [](Call& c) { c.args.A = c.args.B = {}; }},
                        {"with A and B, without xa and yb", [](Call& c) { c.args.xa = c.args.yb = {}; }},
                        {"dA alone, from B", [](Call& c) { c.args.dB = c.args.A = c.args.xa = c.args.yb = {}; }},
                        {"dB alone, from A", [](Call& c) { c.args.dA = c.args.B = c.args.xa = c.args.yb = {}; }},
                        {"dB of column r * E + e",
                         [](Call& c) {
                             c.args.dB = strided(DType::fp32, {E, N, R}, {1, E * R, E});
                         }},
                        {"dA of [K, E, R]", [](Call& c) {
                             c.args.dA = strided(DType::fp32, {E, R, K}, {R, 1, E * R});
                         }}});
}

TEST(ValidateBackwardLora, NamesWhatIsWrong) {
    using Call = BackwardLora;
    expect_problem_checked<Call>();
    expect_scaling_checked<Call>();
    expect_routing_checked<Call>();
    expect_gates_checked<Call>();
    expect_first_rows_checked<Call>("x", [](Call& c) -> Tensor& { return c.args.x; });
    expect_rows_checked<Call>(
        "dy", [](Call& c) -> Tensor& { return c.args.dy; }, "[T, N] = [3, 40]");
    auto expect_tensor = [](const char* argument, Argument<Call> of, const char* shape, const char* dtype,
                            bool required = false) {
        expect_tensor_checked<Call>(argument, of, shape, dtype, required);
    };
    expect_tensor(
        "A", [](Call& c) -> Tensor& { return c.args.A; }, "[E, R, K] = [4, 5, 24]", "fp32");
    expect_tensor(
        "B", [](Call& c) -> Tensor& { return c.args.B; }, "[E, N, R] = [4, 40, 5]", "fp32");
    expect_tensor(
        "xa", [](Call& c) -> Tensor& { return c.args.xa; }, "[M, R] = [6, 5]", "fp16");
    expect_tensor(
        "yb", [](Call& c) -> Tensor& { return c.args.yb; }, "[M, R] = [6, 5]", "fp16");
    expect_tensor(
        "dA", [](Call& c) -> Tensor& { return c.args.dA; }, "[E, R, K] = [4, 5, 24]", "fp32");
    expect_tensor(
        "dB", [](Call& c) -> Tensor& { return c.args.dB; }, "[E, N, R] = [4, 40, 5]", "fp32");
    expect_tensor(
        "gates", [](Call& c) -> Tensor& { return c.args.gates; }, "[T, top_k] = [3, 2]", "fp32", true);
    expect_refused<Call>(
        {{"problem.R: expected 1 to 256 for backward_lora, got 0", [](Call& c) { c.problem.R = 0; }},
         {"dA, dB: expected at least one to be given, got neither", [](Call& c) { c.args.dA = c.args.dB = {}; }},
         {"A: expected to be given to compute dB without xa, not given", [](Call& c) { c.args.A = c.args.xa = {}; }},
         {"B: expected to be given to compute dA without yb, not given", [](Call& c) { c.args.B = c.args.yb = {}; }},
         {"gates: expected not to be given with problem.gates = false, got shape [3, 2]",
          [](Call& c) { c.problem.gates = false; }},
         {"xa: expected strides {padded_rank, 1} = [8, 1], got [16, 1]", [](Call& c) { c.args.xa.strides[0] = 16; }},
         {"yb: expected strides {padded_rank, 1} = [8, 1], got [5, 1]",
          [](Call& c) {
              c.args.yb = tensor(DType::fp16, {M, R});
          }},
         {"dA: expected elements that do not overlap, got strides [0, 24, 1] for shape [4, 5, 24]",
          [](Call& c) { c.args.dA.strides[0] = 0; }},
         {"dA: expected elements that do not overlap, got strides [120, 23, 1] for shape [4, 5, 24]",
          [](Call& c) { c.args.dA.strides[1] = 23; }},
         {"dB: expected elements that do not overlap, got strides [1, 20, 3] for shape [4, 40, 5]",
          [](Call& c) {
              c.args.dB = strided(DType::fp32, {E, N, R}, {1, E * R, E - 1});
          }},
         {"dB: expected strides of 0 or more, got strides [200, 5, -1] for shape [4, 40, 5]",
          [](Call& c) { c.args.dB.strides[2] = -1; }}});
}

}  // namespace
}  // namespace smlora::check::test
