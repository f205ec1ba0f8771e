// Wrong arguments: each public operation refuses them with the argument's name, before it touches an output.
#include "operations/cases.hpp"
#include "support/projection.hpp"
#include "support/runs.hpp"

#include <smlora/activation.hpp>
#include <smlora/error.hpp>

#include <functional>
#include <string>

namespace smlora::test {
namespace {

/// One of everything with all outputs, valid as it stands; a test spoils one argument and calls.
struct Calls {
    explicit Calls(const Engine& engine_)
        : engine(engine_),
          p(engine_, {.problem = with_bias(with_gates(
                          with_rows(shape(4, 96, 80, 16, 2), RowOrder::token, RowOrder::token), DType::fp32)),
                      .T = 10}),
          y(p.make_y()),
          dx(p.make_dx()),
          ranked(p.make_ranked()),
          dgates(p.make_dgates()),
          dA(p.make_dA()),
          dB(p.make_dB()),
          rows(p.rows_of(RowOrder::scattered, p.problem.K)),
          top_idx(engine_, DType::int32, {{p.T, 2}}) {
        top_idx.fill([](std::int64_t i) { return static_cast<double>(i % 4); });
        problem = p.problem;
        forward = p.forward_args();
        forward.y = y.view();
        forward.xa = p.ranked_view(ranked);
        backward_input = p.backward_input_args();
        backward_input.dx = dx.view();
        backward_input.yb = p.ranked_view(ranked);
        backward_input.dgates = dgates.view();
        backward_input.x = p.x.view();
        backward_input.bias = p.bias.view();
        backward_lora = p.backward_lora_args();
        backward_lora.dA = dA.view();
        backward_lora.dB = dB.view();
        route.top_idx = top_idx.view();
        route.routing = p.routing.view();
        group.x = p.x.view();
        group.routing = p.routing.view();
        group.out = rows.view();
        gated = Array(engine, p.problem.dtype, {{p.x.view().shape[0], p.problem.K / 2}});
        combine.y = rows.view();
        combine.out = dx.view();
        combine_backward.dout = p.x.view();
        combine_backward.y = rows.view();
        combine_backward.dgates = dgates.view();
        activation.h = p.x.view();
        activation.a = gated.view();
    }

    const Engine& engine;
    Projection p;
    Array y, dx, ranked, dgates, dA, dB, rows, top_idx, gated;
    Problem problem;
    ForwardArgs forward;
    BackwardInputArgs backward_input;
    BackwardLoraArgs backward_lora;
    RouteArgs route;
    GroupArgs group;
    CombineArgs combine;
    CombineBackwardArgs combine_backward;
    ActivationArgs activation;
};

struct Mistake {
    const char* name;      ///< of the test
    const char* argument;  ///< that the message names
    std::function<void(Calls&)> spoil;
    std::function<void(const Calls&)> call;

    friend std::ostream& operator<<(std::ostream& out, const Mistake& mistake) { return out << mistake.name; }
};

void call_forward(const Calls& c) { forward(c.engine, {}, c.problem, c.forward); }
void call_base(const Calls& c) { scatter2scatter(c.engine, {}, c.problem, c.forward); }
void call_backward_input(const Calls& c) { backward_input(c.engine, {}, c.problem, c.backward_input); }
void call_backward_lora(const Calls& c) { backward_lora(c.engine, {}, c.problem, c.backward_lora); }
void call_route(const Calls& c) { route(c.engine, {}, c.problem, c.route); }
void call_group(const Calls& c) { group(c.engine, {}, c.problem, c.group); }
void call_combine(const Calls& c) { combine(c.engine, {}, c.problem, c.combine); }
void call_combine_backward(const Calls& c) { combine_backward(c.engine, {}, c.problem, c.combine_backward); }

void call_activation(const Calls& c) { activation(c.engine, {}, c.problem, c.activation); }

const std::vector<Mistake>& mistakes() {
    static const std::vector<Mistake> list{
        {"NoExperts", "E", [](Calls& c) { c.problem.E = 0; }, call_forward},
        {"TooManyExperts", "E", [](Calls& c) { c.problem.E = 1025; }, call_route},
        {"NegativeK", "K", [](Calls& c) { c.problem.K = -1; }, call_forward},
        {"NoOutputs", "N", [](Calls& c) { c.problem.N = 0; }, call_backward_input},
        {"RankBeyond256", "R", [](Calls& c) { c.problem.R = 257; }, call_forward},
        {"NegativeRank", "R", [](Calls& c) { c.problem.R = -1; }, call_backward_lora},
        {"NoChoice", "top_k", [](Calls& c) { c.problem.top_k = 0; }, call_route},
        {"TopKBeyond64", "top_k", [](Calls& c) { c.problem.top_k = 65; }, call_group},
        {"IntegerType", "dtype", [](Calls& c) { c.problem.dtype = DType::int32; }, call_forward},
        {"AdapterOfAnother16BitType", "adapter_dtype", [](Calls& c) { c.problem.adapter_dtype = DType::fp16; },
         call_forward},
        {"GatesOfAnother16BitType", "gate_dtype", [](Calls& c) { c.problem.gate_dtype = DType::fp16; }, call_combine},
        {"FloatingIndex", "index_dtype", [](Calls& c) { c.problem.index_dtype = DType::fp32; }, call_route},
        {"GatesOnUnsummedRows", "gates", [](Calls& c) { c.problem.y_rows = RowOrder::scattered; }, call_forward},

        {"XNotGiven", "x", [](Calls& c) { c.forward.x = {}; }, call_forward},
        {"XWithoutMemory", "x", [](Calls& c) { c.forward.x.data = nullptr; }, call_forward},
        {"XBetweenElements", "x", [](Calls& c) { c.forward.x.data = static_cast<char*>(c.forward.x.data) + 1; },
         call_forward},
        {"YOverX", "y", [](Calls& c) { c.forward.y.data = c.forward.x.data; }, call_forward},
        {"YOverXa", "y", [](Calls& c) { c.forward.xa.data = c.forward.y.data; }, call_forward},
        {"DxOverDy", "dx", [](Calls& c) { c.backward_input.dx.data = c.backward_input.dy.data; }, call_backward_input},
        {"DaOverX", "dA", [](Calls& c) { c.backward_lora.dA.data = c.backward_lora.x.data; }, call_backward_lora},
        {"XOfAnotherWidth", "x", [](Calls& c) { c.forward.x.shape[1] = 95; }, call_forward},
        {"XOfAnotherType", "x", [](Calls& c) { c.forward.x.dtype = DType::fp32; }, call_base},
        {"XWithColumnsApart", "x", [](Calls& c) { c.forward.x.strides[1] = 2; }, call_forward},
        {"WTransposed", "W", [](Calls& c) { std::swap(c.forward.W.codes.shape[1], c.forward.W.codes.shape[2]); },
         call_forward},
        {"WOfTooFewExperts", "W", [](Calls& c) { c.forward.W.codes.shape[0] = 3; }, call_base},
        {"WOfTwoDimensions", "W", [](Calls& c) { c.forward.W.codes.ndim = 2; }, call_forward},
        {"WWithRowsApart", "W", [](Calls& c) { c.forward.W.codes.strides[1] = 88; }, call_forward},
        {"AOfAnotherRank", "A", [](Calls& c) { c.forward.A.shape[1] = 8; }, call_forward},
        {"ANotGiven", "A", [](Calls& c) { c.forward.A = {}; }, call_forward},
        {"BOfAnotherType", "B", [](Calls& c) { c.forward.B.dtype = DType::fp32; }, call_forward},
        {"BNotGiven", "B", [](Calls& c) { c.forward.B = {}; }, call_forward},
        {"BiasNotGiven", "bias", [](Calls& c) { c.forward.bias = {}; }, call_forward},
        {"BiasOfAnotherWidth", "bias", [](Calls& c) { c.forward.bias.shape[1] = 96; }, call_forward},
        {"GatesNotGiven", "gates", [](Calls& c) { c.forward.gates = {}; }, call_forward},
        {"GatesOfAnotherType", "gates", [](Calls& c) { c.forward.gates.dtype = DType::bf16; }, call_forward},
        {"RoutingNotGiven", "sorted_scattered_idxs", [](Calls& c) { c.forward.routing.sorted_scattered_idxs = {}; },
         call_forward},
        {"RoutingOfTooFewRows", "sorted_scattered_idxs",
         [](Calls& c) { c.forward.routing.sorted_scattered_idxs.shape[0] = 19; }, call_forward},
        {"OffsetsOfAnotherType", "expert_offsets",
         [](Calls& c) { c.forward.routing.expert_offsets.dtype = DType::int64; }, call_forward},
        {"YNotGiven", "y", [](Calls& c) { c.forward.y = {}; }, call_forward},
        {"YOfTooManyRows", "y", [](Calls& c) { c.forward.y.shape[0] = 20; }, call_forward},
        {"YWithOverlappingRows", "y", [](Calls& c) { c.forward.y.strides[0] = 79; }, call_forward},
        {"XaOfAnotherStride", "xa", [](Calls& c) { c.forward.xa.strides[0] = 24; }, call_forward},
        {"XaOfAnotherType", "xa", [](Calls& c) { c.forward.xa.dtype = DType::fp32; }, call_forward},

        {"DyOfAnotherWidth", "dy", [](Calls& c) { c.backward_input.dy.shape[1] = 81; }, call_backward_input},
        {"DxNotGiven", "dx", [](Calls& c) { c.backward_input.dx = {}; }, call_backward_input},
        {"DxOfTooManyRows", "dx", [](Calls& c) { c.backward_input.dx.shape[0] = 20; }, call_backward_input},
        {"YbOfAnotherRank", "yb", [](Calls& c) { c.backward_input.yb.shape[1] = 8; }, call_backward_input},
        {"DgatesWithoutX", "x", [](Calls& c) { c.backward_input.x = {}; }, call_backward_input},
        {"DgatesWithoutBias", "bias", [](Calls& c) { c.backward_input.bias = {}; }, call_backward_input},
        {"DgatesOfAnotherShape", "dgates", [](Calls& c) { c.backward_input.dgates.shape[1] = 3; }, call_backward_input},

        {"NeitherDaNorDb", "dA", [](Calls& c) { c.backward_lora.dA = c.backward_lora.dB = {}; }, call_backward_lora},
        {"DaOfAnotherShape", "dA", [](Calls& c) { c.backward_lora.dA.shape[2] = 95; }, call_backward_lora},
        {"DaOfAnotherType", "dA", [](Calls& c) { c.backward_lora.dA.dtype = DType::fp32; }, call_backward_lora},
        {"DbWithOverlap", "dB", [](Calls& c) { c.backward_lora.dB.strides[1] = 0; }, call_backward_lora},
        {"DaWithoutB", "B", [](Calls& c) { c.backward_lora.B = {}; }, call_backward_lora},
        {"DbWithoutA", "A", [](Calls& c) { c.backward_lora.A = {}; }, call_backward_lora},
        {"GradientsOfRankZero", "R", [](Calls& c) { c.problem.R = 0; }, call_backward_lora},

        {"TopIdxNotGiven", "top_idx", [](Calls& c) { c.route.top_idx = {}; }, call_route},
        {"TopIdxOfFloats", "top_idx", [](Calls& c) { c.route.top_idx.dtype = DType::fp32; }, call_route},
        {"TopIdxOfAnotherTopK", "top_idx", [](Calls& c) { c.route.top_idx.shape[1] = 3; }, call_route},
        {"RouteWithoutExpertArray", "sorted_expert_idxs", [](Calls& c) { c.route.routing.sorted_expert_idxs = {}; },
         call_route},
        {"OffsetsOfTooFewExperts", "expert_offsets", [](Calls& c) { c.route.routing.expert_offsets.shape[0] = 3; },
         call_route},

        {"GroupIntoTooFewRows", "out", [](Calls& c) { c.group.out.shape[0] = 10; }, call_group},
        {"GroupIntoAnotherWidth", "out", [](Calls& c) { c.group.out.shape[1] = 80; }, call_group},
        {"CombineOfTooFewRows", "y", [](Calls& c) { c.combine.y.shape[0] = 19; }, call_combine},
        {"CombineIntoAnotherType", "out", [](Calls& c) { c.combine.out.dtype = DType::fp32; }, call_combine},
        {"CombineBackwardOfNothing", "dy", [](Calls& c) { c.combine_backward.dgates = {}; }, call_combine_backward},
        {"ActivationOfTheWrongWidth", "h", [](Calls& c) { c.activation.h.shape[1] -= 2; }, call_activation},
        {"ActivationIntoAnotherType", "a", [](Calls& c) { c.activation.a.dtype = DType::int32; }, call_activation},
        {"ActivationOfNoKind", "activation", [](Calls& c) { c.activation.activation = static_cast<Activation>(9); },
         call_activation},
        {"ActivationWithoutALimit", "limit",
         [](Calls& c) {
             c.activation.activation = Activation::swiglu_clamped;
             c.activation.limit = -1;
         },
         call_activation},
        {"CombineBackwardWithoutY", "y", [](Calls& c) { c.combine_backward.y = {}; }, call_combine_backward},
    };
    return list;
}

/// Whether `word` stands in `text` as a word of its own.
bool names(const std::string& text, const std::string& word) {
    const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
        const bool begins = at == 0 || !in_word(text[at - 1]);
        const bool ends = at + word.size() == text.size() || !in_word(text[at + word.size()]);
        if (begins && ends) return true;
    }
    return false;
}

class WrongArgument : public BackendFixture, public testing::WithParamInterface<std::tuple<Backend, Mistake>> {
 protected:
    void SetUp() override { use(std::get<0>(GetParam())); }
};

TEST_P(WrongArgument, IsNamedAndNothingIsWritten) {
    const Mistake& mistake = std::get<1>(GetParam());
    Calls calls(engine());
    mistake.spoil(calls);
    try {
        mistake.call(calls);
        FAIL() << "accepted";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
        EXPECT_TRUE(names(error.what(), mistake.argument))
            << "\"" << error.what() << "\" does not name " << mistake.argument;
    }
    synchronize(engine(), {});
    for (Array* output : {&calls.y, &calls.dx, &calls.ranked, &calls.dgates, &calls.dA, &calls.dB, &calls.rows}) {
        output->download();
        std::int64_t written = 0;
        for (std::int64_t i = 0; i < output->numel(); ++i) written += std::isnan(output->at(i)) ? 0 : 1;
        EXPECT_EQ(written, 0);
    }
}
INSTANTIATE_TEST_SUITE_P(Small, WrongArgument,
                         testing::Combine(testing::Values(Backend::cpu, Backend::cuda), testing::ValuesIn(mistakes())),
                         [](const auto& case_info) {
                             return name_of(std::get<0>(case_info.param)) + "_" + std::get<1>(case_info.param).name;
                         });

class ValidArguments : public OnEachBackend {};

TEST_P(ValidArguments, AreAccepted) {  // else the mistakes above might be refused for another reason
    const Calls calls(engine());
    call_forward(calls);
    call_base(calls);
    call_backward_input(calls);
    call_backward_lora(calls);
    call_route(calls);
    call_group(calls);
    call_combine(calls);
    call_combine_backward(calls);
    call_activation(calls);
    synchronize(engine(), {});
}
SMLORA_ON_EACH_BACKEND(Small, ValidArguments);

class DoubleOnTheGpu : public OnGpu {};

TEST_F(DoubleOnTheGpu, IsUnsupportedOrInvalidAndSaysSo) {
    const Projection p(engine(), {.problem = shape(4, 96, 80, 16, 2, DType::fp64), .T = 10});
    try {
        run_forward(p);
        FAIL() << "accepted";
    } catch (const Error& error) {
        EXPECT_TRUE(error.code() == ErrorCode::unsupported || error.code() == ErrorCode::invalid_argument);
        EXPECT_NE(std::string(error.what()).find("fp64"), std::string::npos) << error.what();
    }
}

}  // namespace
}  // namespace smlora::test
