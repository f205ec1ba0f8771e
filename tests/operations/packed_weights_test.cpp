// Products that decode packed weights on the way: every blocking, not only the one that the cost model prefers, against
// the fp64 reference on the decoded weights.
#include "engine/cuda_call.hpp"
#include "operations/cases.hpp"
#include "ops/projection_call.hpp"
#include "plan/search_space.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <utility>
#include <vector>

namespace smlora::test {
namespace {

class PackedWeights : public OnCases {
 protected:
    void SetUp() override {
        OnCases::SetUp();
        if (IsSkipped()) return;
        if (backend() == Backend::cpu) GTEST_SKIP() << "the CPU backend has no tiles";
        const gpu::DeviceFacts& facts = gpu::device_facts(engine().impl().options.device);
        if (facts.arch.name() != "sm_90a") GTEST_SKIP() << "needs sm_90a, not " << facts.arch.name();
    }

    /// Calls `check(name)` after the operation that `args` describes ran with each blocking.
    template <class Request, class Args, class Check>
    void with_each_blocking(const Projection& p, const Args& args, const Check& check) {
        engine::CudaCall call(engine(), {});
        const ops::Projection projection = ops::projection_of(args, p.T);
        auto request = ops::request_of<Request>(p.problem, projection, call.unpack_limit());
        ASSERT_TRUE(request.packed);
        std::size_t checked = 0;
        for (const auto& candidate : plan::search_space(p.problem, request, plan::Role::product, call.facts())) {
            if (!candidate.refusal.empty()) continue;
            SCOPED_TRACE(candidate.name);
            plan::Choices choices;
            choices.set(plan::Role::product, candidate.configuration);
            plan::Plan plan = plan::make_plan(p.problem, request, call.facts(), choices);
            ASSERT_FALSE(plan.has(plan::Role::unpack));
            call.load(plan);
            const ops::ProjectionCall product(call, plan, p.problem, projection, request.packing, request.unpack);
            product.launch_product();
            product.launch_sum();
            synchronize(p.engine, {});
            check();
            ++checked;
        }
        EXPECT_GE(checked, 4U);
    }
};

TEST_P(PackedWeights, ForwardMatchesTheReferenceWithEachBlocking) {
    const Projection p(engine(), test_case());
    Array y = p.make_y();
    ForwardArgs args = p.forward_args();
    args.y = y.view();
    with_each_blocking<plan::Forward>(p, args, [&] {
        y.download();
        expect_y(p, y);
        y.poison();
    });
    EXPECT_TRUE(p.encoded->is_unchanged());
}

TEST_P(PackedWeights, BackwardInputMatchesTheReferenceWithEachBlocking) {
    const Projection p(engine(), test_case());
    Array dx = p.make_dx();
    BackwardInputArgs args = p.backward_input_args();
    args.dx = dx.view();
    with_each_blocking<plan::BackwardInput>(p, args, [&] {
        dx.download();
        expect_dx(p, dx);
        dx.poison();
    });
}

SMLORA_ON_CASES(Packed, PackedWeights, packed_cases());

}  // namespace
}  // namespace smlora::test
