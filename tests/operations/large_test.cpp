// Tensors of more than 2^31 elements, where an index of 32 bits wraps: W, and the rows on either side.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/gpu.hpp"
#include "support/runs.hpp"

#include <fmt/format.h>

#include <string>

namespace smlora::test {
namespace {

constexpr std::int64_t beyond_int = std::int64_t{1} << 31;

/// How much of the GPU's memory is free, if not as much as a test needs.
std::string memory_missing(std::size_t gibibytes) {
    const CallersContext context;
    std::size_t free = 0, total = 0;
    SMLORA_CUDA(cuMemGetInfo, &free, &total);
    if (free >= gibibytes << 30) return {};
    return fmt::format("needs {} GiB of free GPU memory, there are {}", gibibytes, free >> 30);
}

class Large : public OnGpu {
 protected:
    void SetUp() override {
        OnGpu::SetUp();
        if (IsSkipped()) return;
        const std::string missing = memory_missing(24);
        if (!missing.empty()) GTEST_SKIP() << missing;
    }
    void expect_step(const Case& c) {
        const Projection p(engine(), c);
        const StepRun step = run_step(p);
        expect_y(p, step.forward.y);
        expect_dx(p, step.backward_input.dx);
        expect_dA(p, step.backward_lora.dA);
        expect_dB(p, step.backward_lora.dB);
    }
};

TEST_F(Large, WeightIsReadAtItsLastExpert) {
    Case c{.problem = shape(40, 4096, 16384, 16, 2), .T = 40, .choice = Choice::one_expert};
    ASSERT_GT(39 * c.problem.K * c.problem.N, beyond_int);
    expect_step(c);
}

TEST_F(Large, WeightWithInputsContiguousIsReadAtItsLastExpert) {
    expect_step(
        {.problem = with(shape(40, 4096, 16384, 16, 2), WeightLayout::enk), .T = 40, .choice = Choice::one_expert});
}

constexpr std::int64_t many_tokens = 265'000;  // 8 * 265,000 rows of 1024 are more than 2^31

TEST_F(Large, ScatteredOutputRowsAreWrittenAndReadToTheirEnd) {
    const Case c{.problem = shape(16, 64, 1024, 8, 8), .T = many_tokens};
    ASSERT_GT(c.T * c.problem.top_k * c.problem.N, beyond_int);
    expect_step(c);
}

TEST_F(Large, GroupedInputRowsAreReadAndWrittenToTheirEnd) {
    const Case c{.problem = with_rows(shape(16, 1024, 64, 8, 8), RowOrder::grouped, RowOrder::grouped),
                 .T = many_tokens};
    ASSERT_GT(c.T * c.problem.top_k * c.problem.K, beyond_int);
    expect_step(c);
}

TEST_F(Large, SummedRowsPassThroughScratchMemoryOfThatSize) {
    expect_step(
        {.problem = with_gates(with_rows(shape(16, 64, 1024, 8, 8), RowOrder::token, RowOrder::token), DType::fp32),
         .T = many_tokens});
}

TEST_F(Large, RowsAreGroupedAndCombinedToTheirEnd) {
    const Case c{.problem = shape(16, 1024, 64, 8, 8), .T = many_tokens};
    const Projection p(engine(), c);
    Array rows = p.rows_of(RowOrder::grouped, 1024);
    GroupArgs group_args;
    group_args.x = p.x.view();
    group_args.routing = p.routing.view();
    group_args.out = rows.view();
    group(engine(), {}, p.problem, group_args);
    Array summed = p.rows_of(RowOrder::token, 1024);
    CombineArgs combine_args;
    combine_args.y = rows.view();  // any rows will do
    combine_args.out = summed.view();
    combine(engine(), {}, p.problem, combine_args);
    synchronize(engine(), {});
    rows.download();
    summed.download();
    for (const std::int64_t i : sample_rows(p, RowOrder::grouped, 100'000)) {
        ASSERT_TRUE(rows.same_row(i, p.x, p.host_routing.entry(i) / 8)) << "row " << i;
    }
    Comparison comparison;
    for (const std::int64_t t : sample_rows(p, RowOrder::token, 100'000)) {
        Values sum(1024);
        for (std::int64_t f = 8 * t; f < 8 * (t + 1); ++f) {
            const Values row = rows.row(f);
            for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += row[k];
        }
        comparison.add_group(summed.row(t), sum);
    }
    EXPECT_TRUE(comparison.within(tolerance_of(DType::bf16)));
}

}  // namespace
}  // namespace smlora::test
