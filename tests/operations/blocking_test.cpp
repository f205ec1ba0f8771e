// Every blocking of the product on wgmma, not only the one that the cost model prefers, against the plain reference
// kernel: as the tuner checks its candidates.
#include "autotune/measurer.hpp"
#include "engine/engine_impl.hpp"
#include "families/product_wgmma.hpp"
#include "operations/cases.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "support/gpu.hpp"
#include "util/thread_pool.hpp"

#include <string>
#include <vector>

namespace smlora::test {
namespace {

class Blocking : public OnCases {
 protected:
    /// Legal on the engine's GPU.
    tuning::SearchSpace blockings(const autotune::MeasuredCase& measured, const gpu::DeviceFacts& facts) const {
        tuning::SearchSpace found;
        for (auto& candidate : plan::search_space(measured.problem, measured.request, measured.role, facts)) {
            if (candidate.configuration.family == families::product_wgmma.name && candidate.refusal.empty()) {
                found.push_back(std::move(candidate));
            }
        }
        return found;
    }

    void expect_right(const autotune::MeasuredCase& measured, const gpu::DeviceFacts& facts,
                      std::size_t* checked) const {
        autotune::Measurer measurer(engine().impl(), measured);
        const tuning::SearchSpace space = blockings(measured, facts);
        std::vector<tuning::Preparation> prepared(space.size() * measurer.parts());
        util::ThreadPool(0).parallel_for(static_cast<std::int64_t>(prepared.size()), [&](std::int64_t i) {
            const auto at = static_cast<std::size_t>(i);
            prepared[at] = measurer.prepare(space[at / measurer.parts()], at % measurer.parts());
        });
        measurer.allocate(1, run_seed());
        for (std::size_t i = 0; i < space.size(); ++i) {
            for (std::size_t part = 0; part < measurer.parts(); ++part) {
                EXPECT_EQ(prepared[i * measurer.parts() + part].refusal, "") << space[i].name;
            }
            EXPECT_EQ(measurer.verify(space[i]).refusal, "") << space[i].name;
            ++*checked;
        }
    }
};

TEST_P(Blocking, GivesWhatTheReferenceGives) {
    if (backend() == Backend::cpu) GTEST_SKIP() << "the CPU backend has no tiles";
    const gpu::DeviceFacts& facts = gpu::device_facts(engine().impl().options.device);
    if (facts.arch.name() != "sm_90a") GTEST_SKIP() << "needs sm_90a, not " << facts.arch.name();
    const Problem& problem = test_case().problem;
    std::size_t checked = 0;
    for (const plan::Request& request : plan::step_requests(problem, test_case().T)) {
        if (std::holds_alternative<plan::BackwardLora>(request)) continue;
        autotune::MeasuredCase measured;
        measured.problem = problem;
        measured.request = request;
        measured.rows.T = test_case().T;
        expect_right(measured, facts, &checked);
    }
    EXPECT_GE(checked, 10U) << "blockings of forward and dX";
}

/// Reductions of two steps, where a tile's copies begin while the tile before is stored; ranks of every depth; several
/// tiles of columns and rows.
Cases blocking_cases() {
    using enum RowOrder;
    return {
        {.name = "short", .problem = shape(3, 128, 600, 16, 2), .T = 500},
        {.name = "short_enk", .problem = with(shape(3, 600, 128, 16, 2), WeightLayout::enk), .T = 500},
        {.name = "summed", .problem = with_rows(with_bias(shape(5, 328, 520, 8, 2)), token, token), .T = 500},
        {.name = "R32", .problem = shape(3, 136, 520, 32, 2), .T = 400},
        {.name = "R64", .problem = with(shape(3, 136, 520, 64, 2), WeightLayout::enk), .T = 400},
        {.name = "R96", .problem = shape(3, 136, 520, 96, 2), .T = 400},
        {.name = "base", .problem = shape(3, 128, 600, 0, 2), .T = 500},
    };
}

SMLORA_ON_CASES(Wgmma, Blocking, blocking_cases());

}  // namespace
}  // namespace smlora::test
