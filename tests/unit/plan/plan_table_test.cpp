// The table of loaded plans: one plan a key, whichever thread asks.
#include "plan/plan_table.hpp"

#include "gpu/device.hpp"
#include "plan/step_kernels.hpp"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

namespace smlora::plan {
namespace {

Problem a_problem() {
    Problem problem;
    problem.E = 8;
    problem.K = 256;
    problem.N = 512;
    problem.R = 16;
    problem.top_k = 2;
    return problem;
}

Plan plan_of(const PlanKey& key) {
    return make_plan(key.problem, key.request, gpu::facts_of(gpu::arch_from_name("sm_90a")));
}

TEST(PlanTable, FindsWhatWasInserted) {
    PlanTable table;
    std::set<const Plan*> plans;
    for (const Request& request : step_requests(a_problem(), 64)) {
        const PlanKey key{a_problem(), request, nullptr};
        EXPECT_EQ(table.find(key), nullptr);
        const Plan& plan = table.insert(key, plan_of(key));
        EXPECT_EQ(table.find(key), &plan);
        plans.insert(&plan);
        std::thread([&] { EXPECT_EQ(table.find(key), &plan) << "from another thread"; }).join();
    }
    EXPECT_EQ(plans.size(), 3U);
}

/// Keys that differ from `key` in one thing each.
std::vector<PlanKey> others_than(const PlanKey& key) {
    std::vector<PlanKey> keys(12, key);
    keys[0].problem.bias = true;
    keys[1].problem.adapter_dtype = DType::fp32;
    keys[2].problem.weight_layout = WeightLayout::enk;
    keys[3].context = &keys;
    std::get<Forward>(keys[4].request).bucket += 1;
    std::get<Forward>(keys[5].request).tensor_cores = false;
    std::get<Forward>(keys[6].request).vector_rows = false;
    std::get<Forward>(keys[7].request).packing.a = families::PackWork{};
    std::get<Forward>(keys[8].request).packing.b = families::PackWork{};
    std::get<Forward>(keys[9].request).packing.b = families::PackWork{.fastest = families::Fastest::expert};
    std::get<Forward>(keys[10].request).packing.b = families::PackWork{.vectors = true};
    keys[11].request = step_requests(a_problem(), 64).at(1);
    return keys;
}

TEST(PlanTable, AKeyThatDiffersInOneThingIsAnother) {
    PlanTable table;
    const PlanKey key{a_problem(), step_requests(a_problem(), 64).at(0), nullptr};
    const Plan& plan = table.insert(key, plan_of(key));
    const std::vector<PlanKey> others = others_than(key);
    for (std::size_t i = 0; i < others.size(); ++i) {
        EXPECT_EQ(table.find(others[i]), nullptr) << i;
        EXPECT_EQ(table.find(key), &plan) << i;
    }
}

TEST(PlanTable, ThreadsThatMakeTheSamePlanShareTheFirst) {
    PlanTable table;
    const PlanKey key{a_problem(), step_requests(a_problem(), 64).at(0), nullptr};
    std::vector<const Plan*> plans(8);
    std::vector<std::thread> threads;
    for (const Plan*& plan : plans) threads.emplace_back([&] { plan = &table.insert(key, plan_of(key)); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(std::set<const Plan*>(plans.begin(), plans.end()).size(), 1U);
    EXPECT_EQ(table.find(key), plans.front());
}

TEST(PlanTable, ATableDoesNotKnowThePlansOfAnother) {
    const PlanKey key{a_problem(), step_requests(a_problem(), 64).at(0), nullptr};
    for (int i = 0; i < 2; ++i) {
        // The second is likely to lie where the first did.
        PlanTable table;
        EXPECT_EQ(table.find(key), nullptr);
        static_cast<void>(table.insert(key, plan_of(key)));
        EXPECT_NE(table.find(key), nullptr);
    }
}

}  // namespace
}  // namespace smlora::plan
