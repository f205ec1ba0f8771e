// Outputs share no memory with the other arguments; slices of one buffer that have no byte in common may be given.
#include "check/overlap.hpp"
#include "unit/check/validate_calls.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace smlora::check::test {
namespace {

constexpr std::uintptr_t base = 0x10000;

/// A view that begins `offset` elements into a buffer.
Tensor slice(std::int64_t offset, std::initializer_list<std::int64_t> shape,
             std::initializer_list<std::int64_t> strides, DType dtype = DType::bf16) {
    return {reinterpret_cast<void*>(base + static_cast<std::uintptr_t>(offset) * size_of(dtype)), dtype, shape,
            strides};
}

bool overlap(const Tensor& a, const Tensor& b) {
    const bool answer = check::overlap({"a", a}, {"b", b});
    EXPECT_EQ(check::overlap({"b", b}, {"a", a}), answer);
    return answer;
}

TEST(Overlap, OneBufferOrItsNeighbour) {
    EXPECT_TRUE(overlap(slice(0, {4, 8}, {8, 1}), slice(0, {4, 8}, {8, 1})));
    EXPECT_TRUE(overlap(slice(0, {4, 8}, {8, 1}), slice(31, {4, 8}, {8, 1})));
    EXPECT_FALSE(overlap(slice(0, {4, 8}, {8, 1}), slice(32, {4, 8}, {8, 1})));
}

TEST(Overlap, ColumnsOfOneMatrixAreApart) {
    // Gates and values of rows in halves, each [1000, 8] of [1000, 16].
    EXPECT_FALSE(overlap(slice(0, {1000, 8}, {16, 1}), slice(8, {1000, 8}, {16, 1})));
    EXPECT_TRUE(overlap(slice(0, {1000, 9}, {16, 1}), slice(8, {1000, 8}, {16, 1})));
    // Further down, the left columns of one are the right columns of the other.
    EXPECT_FALSE(overlap(slice(0, {1000, 8}, {16, 1}), slice(16 * 7 + 8, {500, 8}, {16, 1})));
    // Every second element.
    EXPECT_FALSE(overlap(slice(0, {10, 8}, {16, 2}), slice(1, {10, 8}, {16, 2})));
    EXPECT_TRUE(overlap(slice(0, {10, 8}, {16, 2}), slice(2, {10, 8}, {16, 2})));
    // Every second row, in the other columns.
    EXPECT_FALSE(overlap(slice(0, {1'000'000, 8}, {16, 1}), slice(8, {500'000, 8}, {32, 1})));
}

TEST(Overlap, AAndBOfEachExpertInTurnAreApart) {
    // An expert's A [R, K] = [4, 24], then its B [N, R] = [40, 4], stored as its transpose.
    const Tensor A = slice(0, {128, 4, 24}, {256, 24, 1});
    EXPECT_FALSE(overlap(A, slice(96, {128, 40, 4}, {256, 1, 40})));
    EXPECT_TRUE(overlap(A, slice(95, {128, 40, 4}, {256, 1, 40})));
    EXPECT_TRUE(overlap(A, slice(97, {128, 40, 4}, {256, 1, 40})));
}

TEST(Overlap, OtherTypesAreComparedByTheByte) {
    EXPECT_FALSE(overlap(slice(0, {3}, {1}, DType::bf16), slice(2, {3}, {1}, DType::fp32)));
    EXPECT_TRUE(overlap(slice(0, {5}, {1}, DType::bf16), slice(2, {3}, {1}, DType::fp32)));
}

TEST(Overlap, WhatIsEmptyOrNotGivenMeetsNothing) {
    EXPECT_FALSE(overlap(slice(0, {4, 0}, {8, 1}), slice(0, {4, 8}, {8, 1})));
    EXPECT_FALSE(overlap({}, slice(0, {4, 8}, {8, 1})));
}

TEST(Overlap, AWorkspaceIsAllOfItsBytes) {
    const Tensor rows = slice(0, {4, 8}, {16, 1});
    const Workspace gap{reinterpret_cast<void*>(base + 16), 16};
    const Workspace longer{reinterpret_cast<void*>(base + 16), 17};
    EXPECT_FALSE(check::overlap({"rows", rows}, Operand(gap)));
    EXPECT_TRUE(check::overlap({"rows", rows}, Operand(longer)));
    EXPECT_FALSE(check::overlap({"rows", rows}, Operand(Workspace{})));
}

/// Every byte of a view.
std::set<std::uintptr_t> bytes_of(const Tensor& t) {
    std::set<std::uintptr_t> bytes;
    for (std::int64_t i = 0; i < t.shape[0]; ++i) {
        for (std::int64_t j = 0; j < t.shape[1]; ++j) {
            for (std::int64_t k = 0; k < t.shape[2]; ++k) {
                const auto element =
                    static_cast<std::uintptr_t>(i * t.strides[0] + j * t.strides[1] + k * t.strides[2]);
                const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(t.data) + element * size_of(t.dtype);
                for (std::size_t b = 0; b < size_of(t.dtype); ++b) bytes.insert(first + b);
            }
        }
    }
    return bytes;
}

TEST(Overlap, AgreesWithCountingTheBytesOfAnyTwoViews) {
    std::mt19937 generator(20);
    const auto number = [&](std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
    };
    const auto view = [&] {
        return slice(number(0, 60), {number(1, 5), number(1, 5), number(1, 4)},
                     {number(0, 40), number(0, 12), number(0, 4)}, number(0, 1) == 0 ? DType::bf16 : DType::fp32);
    };
    int apart = 0, shared = 0;
    for (int trial = 0; trial < 4000; ++trial) {
        const Tensor a = view(), b = view();
        const auto of_a = bytes_of(a);
        const auto of_b = bytes_of(b);
        const bool expected =
            std::any_of(of_b.begin(), of_b.end(), [&](std::uintptr_t byte) { return of_a.contains(byte); });
        ASSERT_EQ(overlap(a, b), expected) << shape_text(a) << " " << shape_text(b) << " in trial " << trial;
        const bool spans_meet = *of_a.begin() <= *of_b.rbegin() && *of_b.begin() <= *of_a.rbegin();
        ++(expected ? shared : apart) += spans_meet ? 0 : -1;
    }
    EXPECT_GT(apart, 300) << "few pairs lie in one another's gaps";
    EXPECT_GT(shared, 1000);
}

template <class Call>
struct NamedArgument {
    const char* name;
    Argument<Call> of;
};

Tensor& view_of(Tensor& tensor) { return tensor; }
Tensor& view_of(Weight& weight) { return weight.codes; }

#define SMLORA_ARGUMENT(Call, member)                                       \
    NamedArgument<Call> {                                                   \
#member, [](Call & c) -> Tensor& { return view_of(c.args.member); } \
    }

/// Puts each output where another argument begins; the refusal names both.
template <class Call>
void expect_apart(const std::vector<NamedArgument<Call>>& outputs, const std::vector<NamedArgument<Call>>& inputs) {
    const auto expect_refused = [](Call call, const std::string& output, const std::string& other) {
        const std::string beginning = output + ": expected memory that " + other + " does not use, got 0x";
        try {
            call.validate();
            ADD_FAILURE() << output << " may overlap " << other;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            EXPECT_EQ(std::string(error.what()).substr(0, beginning.size()), beginning);
        }
    };
    for (auto output = outputs.begin(); output != outputs.end(); ++output) {
        std::vector<NamedArgument<Call>> others(output + 1, outputs.end());
        others.insert(others.end(), inputs.begin(), inputs.end());
        for (const NamedArgument<Call>& other : others) {
            Call call;
            output->of(call).data = other.of(call).data;
            expect_refused(call, output->name, other.name);
        }
    }
    if constexpr (requires(Call c) { c.args.workspace; }) {
        for (const auto* all : {&outputs, &inputs}) {
            for (const NamedArgument<Call>& other : *all) {
                Call call;
                const bool written = all == &outputs;
                call.args.workspace = {other.of(call).data, 256};
                expect_refused(call, written ? other.name : "workspace", written ? "workspace" : other.name);
            }
        }
    }
}

/// Inputs of the same type may share memory.
template <class Call>
void expect_inputs_may_meet(Argument<Call> a, Argument<Call> b) {
    Call call;
    a(call).data = b(call).data;
    EXPECT_NO_THROW(call.validate());
}

#define SMLORA_ROUTING(Call)                                                                                 \
    SMLORA_ARGUMENT(Call, routing.sorted_expert_idxs), SMLORA_ARGUMENT(Call, routing.sorted_scattered_idxs), \
        SMLORA_ARGUMENT(Call, routing.expert_offsets)

TEST(Outputs, OfRouteAreApart) { expect_apart<Route>({SMLORA_ROUTING(Route)}, {SMLORA_ARGUMENT(Route, top_idx)}); }

TEST(Outputs, OfGroupAreApart) {
    expect_apart<Group>({SMLORA_ARGUMENT(Group, out)},
                        {SMLORA_ARGUMENT(Group, x), SMLORA_ARGUMENT(Group, gates), SMLORA_ROUTING(Group)});
}

TEST(Outputs, OfCombineAreApart) {
    expect_apart<Combine>({SMLORA_ARGUMENT(Combine, out)},
                          {SMLORA_ARGUMENT(Combine, y), SMLORA_ARGUMENT(Combine, gates)});
}

TEST(Outputs, OfCombineBackwardAreApart) {
    using Call = CombineBackward;
    expect_apart<Call>({SMLORA_ARGUMENT(Call, dy), SMLORA_ARGUMENT(Call, dgates)},
                       {SMLORA_ARGUMENT(Call, dout), SMLORA_ARGUMENT(Call, y), SMLORA_ARGUMENT(Call, gates)});
}

TEST(Outputs, OfForwardAreApart) {
    using Call = Forward;
    expect_apart<Call>(
        {SMLORA_ARGUMENT(Call, y), SMLORA_ARGUMENT(Call, xa)},
        {SMLORA_ARGUMENT(Call, x), SMLORA_ARGUMENT(Call, W), SMLORA_ARGUMENT(Call, A), SMLORA_ARGUMENT(Call, B),
         SMLORA_ARGUMENT(Call, bias), SMLORA_ARGUMENT(Call, gates), SMLORA_ROUTING(Call)});
    expect_inputs_may_meet<Call>([](Call& c) -> Tensor& { return c.args.A; },
                                 [](Call& c) -> Tensor& { return c.args.B; });
}

TEST(Outputs, OfBackwardInputAreApart) {
    using Call = BackwardInput;
    expect_apart<Call>(
        {SMLORA_ARGUMENT(Call, dx), SMLORA_ARGUMENT(Call, yb), SMLORA_ARGUMENT(Call, dgates)},
        {SMLORA_ARGUMENT(Call, dy), SMLORA_ARGUMENT(Call, W), SMLORA_ARGUMENT(Call, A), SMLORA_ARGUMENT(Call, B),
         SMLORA_ARGUMENT(Call, gates), SMLORA_ARGUMENT(Call, x), SMLORA_ARGUMENT(Call, bias), SMLORA_ROUTING(Call)});
}

TEST(Outputs, OfBackwardLoraAreApart) {
    using Call = BackwardLora;
    expect_apart<Call>(
        {SMLORA_ARGUMENT(Call, dA), SMLORA_ARGUMENT(Call, dB)},
        {SMLORA_ARGUMENT(Call, x), SMLORA_ARGUMENT(Call, dy), SMLORA_ARGUMENT(Call, A), SMLORA_ARGUMENT(Call, B),
         SMLORA_ARGUMENT(Call, gates), SMLORA_ARGUMENT(Call, xa), SMLORA_ARGUMENT(Call, yb), SMLORA_ROUTING(Call)});
    expect_inputs_may_meet<Call>([](Call& c) -> Tensor& { return c.args.xa; },
                                 [](Call& c) -> Tensor& { return c.args.yb; });
}

struct Activated {
    Problem problem = sound_problem();
    ActivationArgs args{.h = tensor(DType::fp16, {M, 16}), .a = tensor(DType::fp16, {M, 8})};
    std::int64_t validate() const { return validate_activation(problem, args, Backend::cpu); }
};

struct ActivatedBackward {
    Problem problem = sound_problem();
    ActivationBackwardArgs args{.h = tensor(DType::fp16, {M, 16}),
                                .da = tensor(DType::fp16, {M, 8}),
                                .dh = tensor(DType::fp16, {M, 16}),
                                .a = tensor(DType::fp16, {M, 8}),
                                .gates = tensor(DType::fp32, {T, top_k}),
                                .sorted_scattered_idxs = tensor(DType::int64, {M}),
                                .dgates = tensor(DType::fp32, {T, top_k})};
    std::int64_t validate() const { return validate_activation_backward(problem, args, Backend::cpu); }
};

TEST(Outputs, OfActivationsAreApart) {
    expect_apart<Activated>({SMLORA_ARGUMENT(Activated, a)}, {SMLORA_ARGUMENT(Activated, h)});
    using Call = ActivatedBackward;
    expect_apart<Call>({SMLORA_ARGUMENT(Call, dh), SMLORA_ARGUMENT(Call, a), SMLORA_ARGUMENT(Call, dgates)},
                       {SMLORA_ARGUMENT(Call, h), SMLORA_ARGUMENT(Call, da), SMLORA_ARGUMENT(Call, gates),
                        SMLORA_ARGUMENT(Call, sorted_scattered_idxs)});
}

TEST(Outputs, ThatAreSlicesOfOneBufferAreTaken) {
    BackwardLora call;
    // dA [E, R, K], then dB [E, N, R], of each expert in turn, in a buffer that also holds A and B.
    constexpr std::int64_t expert = 2 * (R * K + N * R);
    auto* buffer = static_cast<float*>(memory());
    call.args.A = {buffer, DType::fp32, {E, R, K}, {expert, K, 1}};
    call.args.B = {buffer + R * K, DType::fp32, {E, N, R}, {expert, 1, N}};
    call.args.dA = {buffer + expert / 2, DType::fp32, {E, R, K}, {expert, K, 1}};
    call.args.dB = {buffer + expert / 2 + R * K, DType::fp32, {E, N, R}, {expert, 1, N}};
    EXPECT_EQ(call.validate(), T);
    call.args.dB.data = buffer + expert / 2 + R * K - 1;
    EXPECT_THROW(call.validate(), Error);
}

TEST(Outputs, ThePaddingOfRankRowsIsWritten) {
    Forward call;
    // Columns 5 to 7 of xa, which has 5: free in shape, yet zeroed.
    call.args.gates = Tensor(static_cast<char*>(call.args.xa.data) + 12, DType::fp32, {T, top_k});
    EXPECT_THROW(call.validate(), Error);
    // A single row's padding too, whatever its column stride says.
    call = {};
    call.problem.R = 1;
    call.args.A = tensor(DType::fp32, {E, 1, K});
    call.args.B = tensor(DType::fp32, {E, N, 1});
    call.args.xa = strided(DType::fp16, {M, 1}, {8, 0});
    EXPECT_EQ(call.validate(), T);
    call.args.y.data = static_cast<char*>(call.args.xa.data) + 16 * M - 2;
    EXPECT_THROW(call.validate(), Error);
}

TEST(Outputs, TheMessageSaysWhereBothLie) {
    Combine call;
    call.args.y.data = reinterpret_cast<void*>(0x1000);
    call.args.out.data = reinterpret_cast<void*>(0x1010);
    expect_message(call, "out: expected memory that y does not use, got 0x1010 to 0x103a, where y is 0x1000 to 0x1054");
}

}  // namespace
}  // namespace smlora::check::test
