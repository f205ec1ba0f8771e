// Scratch memory: what the query says is enough and is all that is used; the pool gives the same bits.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <smlora/error.hpp>

#include <string>

namespace smlora::test {
namespace {

/// Scratch memory of exactly `bytes`, full of NaN, between guards.
class ExactWorkspace {
 public:
    ExactWorkspace(const Engine& engine, std::size_t bytes)
        : bytes_(bytes), memory_(engine, DType::bf16, {{static_cast<std::int64_t>((bytes + 1) / 2)}}) {}
    [[nodiscard]] Workspace view() const { return {memory_.view().data, bytes_}; }
    void expect_guards_untouched() {
        memory_.download();
        EXPECT_TRUE(memory_.untouched_outside())
            << "bytes beyond the " << bytes_ << " of the workspace were overwritten";
    }

 private:
    std::size_t bytes_;
    Array memory_;
};

class WorkspaceOfTheCaller : public OnCases {};

TEST_P(WorkspaceOfTheCaller, OfTheQueriedSizeIsEnoughAndGivesTheBitsOfThePool) {
    const Projection p(engine(), test_case());

    ExactWorkspace for_forward(engine(), forward_workspace(engine(), p.problem, p.T));
    ForwardArgs forward_args = p.forward_args();
    const ForwardRun pooled_forward = run_forward(p, forward_args);
    forward_args.workspace = for_forward.view();
    const ForwardRun forward = run_forward(p, forward_args);
    EXPECT_TRUE(forward.y.same_bits(pooled_forward.y));
    expect_y(p, forward.y);
    for_forward.expect_guards_untouched();

    ExactWorkspace for_input(engine(), backward_input_workspace(engine(), p.problem, p.T));
    BackwardInputArgs input_args = p.backward_input_args();
    const BackwardInputRun pooled_input = run_backward_input(p, input_args);
    input_args.workspace = for_input.view();
    const BackwardInputRun input = run_backward_input(p, input_args);
    EXPECT_TRUE(input.dx.same_bits(pooled_input.dx));
    if (p.problem.gates) {
        EXPECT_TRUE(input.dgates.same_bits(pooled_input.dgates));
    }
    expect_dx(p, input.dx);
    for_input.expect_guards_untouched();

    ExactWorkspace for_lora(engine(), backward_lora_workspace(engine(), p.problem, p.T));
    BackwardLoraArgs lora_args = p.backward_lora_args();
    const BackwardLoraRun pooled_lora = run_backward_lora(p, lora_args);
    lora_args.workspace = for_lora.view();
    const BackwardLoraRun lora = run_backward_lora(p, lora_args);
    EXPECT_TRUE(lora.dA.same_bits(pooled_lora.dA));
    EXPECT_TRUE(lora.dB.same_bits(pooled_lora.dB));
    expect_dA(p, lora.dA);
    expect_dB(p, lora.dB);
    for_lora.expect_guards_untouched();
}

TEST_P(WorkspaceOfTheCaller, ThatIsTooSmallIsNamedInTheError) {
    const Projection p(engine(), test_case());
    if (forward_workspace(engine(), p.problem, p.T) == 0) GTEST_SKIP() << "forward needs no scratch memory here";
    ExactWorkspace workspace(engine(), 1);
    Array y = p.make_y();
    ForwardArgs args = p.forward_args();
    args.y = y.view();
    args.workspace = workspace.view();
    try {
        forward(engine(), {}, p.problem, args);  // without xa, which then needs scratch memory
        FAIL() << "a workspace of one byte was accepted";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        EXPECT_NE(std::string(error.what()).find("workspace"), std::string::npos) << error.what();
    }
}

Cases workspace_cases() {
    using enum RowOrder;
    const Problem p = shape(8, 96, 80, 16, 2);
    return {
        {.name = "scattered", .problem = p, .T = 70},
        {.name = "summed_gates_bias",
         .problem = with_bias(with_gates(with_rows(p, token, token), DType::fp32)),
         .T = 70,
         .left_out = 0.2},
        {.name = "grouped", .problem = with_rows(p, grouped, grouped), .T = 70},
        {.name = "odd", .problem = with_rows(shape(8, 37, 53, 5, 3), token, token), .T = 33},
        {.name = "fp32_adapter_peft", .problem = with_adapter(p, DType::fp32), .T = 70, .adapter = AdapterLayout::peft},
        {.name = "fp32", .problem = with_rows(shape(8, 96, 80, 16, 2, DType::fp32), token, token), .T = 70},
        {.name = "misaligned", .problem = p, .T = 70, .row_gap = 1, .shift = 1},
        {.name = "quantised",
         .problem = with_weights(with_rows(shape(8, 96, 80, 16, 2), token, token), usual_format(Encoding::int8)),
         .T = 70},
        {.name = "one_token", .problem = p, .T = 1},
        {.name = "no_token", .problem = p, .T = 0},
        {.name = "skewed",
         .problem = with_rows(shape(64, 96, 80, 16, 4), token, token),
         .T = 200,
         .choice = Choice::skewed},
    };
}
SMLORA_ON_CASES(Small, WorkspaceOfTheCaller, workspace_cases());

}  // namespace
}  // namespace smlora::test
