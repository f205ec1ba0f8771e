// Requests: which pieces of work they have, and what records call those.
#include "plan/request.hpp"

#include "families/family.hpp"
#include "gpu/device.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "tuning/bucket.hpp"
#include "unit/autotune/tuning_fixtures.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace smlora::plan {
namespace {

constexpr std::int64_t tokens = 2048;

Problem gated_problem() {
    Problem problem;
    problem.E = 8;
    problem.K = 256;
    problem.N = 512;
    problem.R = 16;
    problem.top_k = 2;
    problem.x_rows = RowOrder::grouped;
    problem.y_rows = RowOrder::token;
    problem.gates = true;
    return problem;
}

TEST(Requests, RankRowsAreNeededExactlyWhereThePlanMakesThem) {
    const Problem problem = gated_problem();
    std::set<bool> answers;
    for (const Request& request : step_requests(problem, tokens)) {
        for (const Role role : chosen_roles(problem, request)) {
            if (role != Role::product) continue;
            for (const tuning::Candidate& candidate : search_space(problem, request, role, autotune::h200())) {
                if (!candidate.legal()) continue;
                Choices choices;
                choices.set(role, candidate.configuration);
                const Plan plan = make_plan(problem, request, autotune::h200(), choices);
                for (const Role one : chosen_roles(problem, request)) {
                    const bool needed = is_needed(problem, request, one, autotune::h200(), choices);
                    EXPECT_EQ(needed, plan.has(one)) << candidate.name;
                    answers.insert(needed);
                }
            }
        }
    }
    EXPECT_EQ(answers.size(), 2U) << "some products make their rank rows, others do not";
}

TEST(Requests, WorkIsFoundByItsName) {
    const Problem problem = gated_problem();
    for (const char* const slot : {"forward", "dx", "dx before gates", "xa", "yb", "gradients", "dA", "dB"}) {
        const auto work = work_called(slot, problem, tuning::bucket_of(tokens));
        ASSERT_TRUE(work.has_value()) << slot;
        EXPECT_EQ(slot_name(problem, work->request, work->role), slot);
        EXPECT_EQ(bucket(work->request), tuning::bucket_of(tokens));
        EXPECT_FALSE(search_space(problem, work->request, work->role, autotune::h200()).empty()) << slot;
    }
    EXPECT_FALSE(work_called("dw", problem, 11).has_value());
    Problem base = problem;
    base.R = 0;
    EXPECT_TRUE(work_called("forward", base, 11).has_value());
    for (const char* const slot : {"xa", "yb", "gradients", "dA", "dB"}) {
        EXPECT_FALSE(work_called(slot, base, 11).has_value()) << slot << " without an adapter";
    }
}

TEST(Requests, AConfigurationOfNoFamilyIsAnError) {
    try {
        static_cast<void>(families::makes_rank_rows({"grouped_product_abacus", {}}));
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::internal);
        EXPECT_STREQ(error.what(), "there is no kernel family grouped_product_abacus here");
    }
}

}  // namespace
}  // namespace smlora::plan
