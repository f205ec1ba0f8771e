// Slices of experts, to which quantised weights are unpacked: how many, and which kernels they make.
#include "families/unpack.hpp"
#include "plan/plan.hpp"
#include "plan/step_kernels.hpp"
#include "plan/work.hpp"
#include "unit/autotune/tuning_fixtures.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace smlora::plan {
namespace {

constexpr std::uint64_t mebibyte = 1 << 20;

Problem qwen3_gate_up() {
    return {.E = 128,
            .K = 2048,
            .N = 1536,
            .R = 16,
            .top_k = 8,
            .weight_layout = WeightLayout::enk,
            .weights = usual_format(Encoding::nf4)};
}

TEST(Slices, FitTheLimitAndAreOfOneSize) {
    const Problem problem = qwen3_gate_up();  // 6 MiB an expert
    EXPECT_EQ(families::unpacked_bytes(problem, 1), std::int64_t{6} << 20);
    EXPECT_EQ(families::slice_experts(problem, 768 * mebibyte), 128);
    EXPECT_EQ(families::slice_experts(problem, 10'000 * mebibyte), 128);
    EXPECT_EQ(families::slice_experts(problem, 768 * mebibyte - 1), 64);
    EXPECT_EQ(families::slice_experts(problem, 256 * mebibyte),
              32);  // 42 fit: four slices, the last of which has no fewer
    EXPECT_EQ(families::slice_experts(problem, 6 * mebibyte), 1);
    EXPECT_EQ(families::slice_experts(problem, 0), 1) << "one expert, however large";
    for (std::uint64_t limit = 0; limit < 800; limit += 7) {
        const std::int64_t experts = families::slice_experts(problem, limit * mebibyte);
        EXPECT_TRUE(experts == 1 || experts * 6 <= static_cast<std::int64_t>(limit));
        const std::int64_t slices = (problem.E + experts - 1) / experts;
        EXPECT_GE(problem.E - (slices - 1) * experts, 1) << "an empty slice";
    }
}

TEST(Slices, AllExpertsAtOnceAreNone) {
    const Problem problem = qwen3_gate_up();
    const families::UnpackWork work = families::aligned_unpack_work(problem);
    EXPECT_TRUE(work.vectors);
    EXPECT_EQ(unpack_request(problem, work, 256 * mebibyte).slice, 32);
    EXPECT_EQ(unpack_request(problem, work, 768 * mebibyte).slice, 0);
}

TEST(Slices, ChangeTheProductAndNothingElse) {
    Forward request = std::get<Forward>(step_requests(with_plain_weights(qwen3_gate_up()), 2048).at(0));
    const Plan plain = make_plan(with_plain_weights(qwen3_gate_up()), request, autotune::h200());
    request.unpack = Unpack{families::aligned_unpack_work(qwen3_gate_up()), 32};
    const Plan sliced = make_plan(qwen3_gate_up(), request, autotune::h200());
    EXPECT_FALSE(plain.has(Role::unpack));
    EXPECT_TRUE(sliced.has(Role::unpack));
    jit::KernelSpec expected = plain.at(Role::product).spec;
    for (jit::Constant& constant : expected.constants) {
        if (constant.name == "E") constant.integer = 32;
        if (constant.name == "SLICE") constant.integer = 1;
    }
    expected.dynamic_shared = sliced.at(Role::product).spec.dynamic_shared;
    EXPECT_EQ(sliced.at(Role::product).spec, expected);
    EXPECT_LE(expected.dynamic_shared, plain.at(Role::product).spec.dynamic_shared);
    EXPECT_EQ(with_plain_weights(Request(request)),
              Request(std::get<Forward>(step_requests(with_plain_weights(qwen3_gate_up()), 2048).at(0))));
}

TEST(Slices, ArePrewarmed) {
    const auto families_of = [](std::uint64_t limit) {
        std::vector<std::string> families;
        for (const jit::KernelSpec& spec : step_kernels(qwen3_gate_up(), 2048, autotune::h200(), {}, limit)) {
            for (const jit::Constant& constant : spec.constants) {
                if (constant.name == "SLICE") families.push_back(spec.family + " " + std::to_string(constant.integer));
            }
            if (spec.family == "unpack_weights") families.push_back(spec.family);
        }
        return families;
    };
    const auto has = [](const std::vector<std::string>& list, const std::string& end) {
        return std::any_of(list.begin(), list.end(), [&](const std::string& one) { return one.ends_with(end); });
    };
    EXPECT_TRUE(has(families_of(256 * mebibyte), "unpack_weights"));
    EXPECT_TRUE(has(families_of(256 * mebibyte), "wgmma 1"));
    EXPECT_FALSE(has(families_of(256 * mebibyte), "wgmma 0"));
    EXPECT_TRUE(has(families_of(768 * mebibyte), "wgmma 0"));
    EXPECT_FALSE(has(families_of(768 * mebibyte), "wgmma 1"));
}

}  // namespace
}  // namespace smlora::plan
