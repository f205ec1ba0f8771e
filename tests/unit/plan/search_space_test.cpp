// Candidates: legal ones fit their device, and the plan is made from them.
#include "plan/search_space.hpp"

#include "families/family.hpp"
#include "plan/step_kernels.hpp"
#include "unit/autotune/tuning_fixtures.hpp"

#include <smlora/error.hpp>

#include <algorithm>
#include <random>
#include <set>
#include <stdexcept>

namespace smlora::plan {
namespace {

TEST(SearchSpace, EveryArchitectureHasAChoiceForEveryShape) {
    const unsigned seed = std::random_device()();
    std::mt19937 random(seed);
    const auto draw = [&](std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    for (const gpu::Arch& arch : gpu::supported_archs()) {
        const gpu::DeviceFacts facts = gpu::facts_of(arch);
        for (int round = 0; round < 30; ++round) {
            Problem problem;
            problem.E = draw(1, 1024);
            problem.K = 8 * draw(1, 1000);
            problem.N = 8 * draw(1, 1000);
            problem.R = draw(0, 256);
            problem.top_k = draw(1, std::min<std::int64_t>(problem.E, 64));
            problem.weight_layout = draw(0, 1) == 0 ? WeightLayout::ekn : WeightLayout::enk;
            for (const Request& request : step_requests(problem, draw(1, 200'000))) {
                for (const Role role : chosen_roles(problem, request)) {
                    const tuning::SearchSpace space = search_space(problem, request, role, facts);
                    const auto best = tuning::heuristic_choice(space);
                    ASSERT_TRUE(best.has_value()) << to_string(problem) << " on " << arch.name() << ", seed " << seed;
                    std::set<std::string> names;
                    for (const tuning::Candidate& candidate : space) {
                        EXPECT_TRUE(names.insert(candidate.name).second) << candidate.name;
                        EXPECT_GT(candidate.predicted_seconds, 0);
                        EXPECT_TRUE(!candidate.legal() || candidate.shared_bytes <= facts.shared_bytes_per_block);
                    }
                }
                // Each piece of work, whatever is chosen for the others, ends up in the plan.
                EXPECT_NO_THROW(static_cast<void>(make_plan(problem, request, facts))) << "seed " << seed;
            }
        }
    }
}

TEST(SearchSpace, NumberTypesBesideTheProblemsOwnChangeNoLegality) {
    Problem problem = autotune::small_problem();
    problem.x_rows = RowOrder::grouped;
    problem.y_rows = RowOrder::token;
    problem.gates = true;
    problem.adapter_dtype = DType::fp32;
    problem.gate_dtype = DType::bf16;
    problem.index_dtype = DType::int64;
    const Problem plain = plain_problem(problem);
    EXPECT_EQ(to_string(plain), "E8 K256 N512 R16 k2 bf16 ekn grouped->token gates:fp32");
    EXPECT_EQ(plain_problem(plain), plain);
    EXPECT_EQ(related_problems(problem, Role::product), std::vector{plain});
    std::vector<std::string> of_gradients;
    for (const Problem& related : related_problems(problem, Role::gradients))
        of_gradients.push_back(to_string(related));
    EXPECT_EQ(of_gradients, (std::vector<std::string>{"E8 K256 N512 R16 k2 bf16 ekn grouped->token gates:fp32",
                                                      "E8 K256 N512 R16 k2 bf16 enk grouped->token gates:fp32",
                                                      "E8 K256 N512 R16 k2 bf16 ekn grouped->token bias gates:fp32",
                                                      "E8 K256 N512 R16 k2 bf16 enk grouped->token bias gates:fp32"}));
    int compared = 0;
    for (const gpu::Arch& arch : gpu::supported_archs()) {
        for (const Request& request : step_requests(problem, 2048)) {
            for (const Role role : chosen_roles(problem, request)) {
                const gpu::DeviceFacts facts = gpu::facts_of(arch);
                EXPECT_EQ(slot_name(problem, request, role), slot_name(plain, request, role));
                const tuning::SearchSpace here = search_space(problem, request, role, facts);
                const tuning::SearchSpace there = search_space(plain, request, role, facts);
                ASSERT_EQ(here.size(), there.size());
                for (std::size_t i = 0; i < here.size(); ++i) {
                    EXPECT_EQ(here[i].configuration, there[i].configuration);
                    EXPECT_EQ(here[i].refusal, there[i].refusal);
                    ++compared;
                }
            }
        }
    }
    EXPECT_GT(compared, 100);
}

/// Of a product behind the kernel that makes its rank rows.
tuning::Configuration reads_rank_rows(const Problem& problem, const Request& request) {
    for (const tuning::Candidate& candidate : search_space(problem, request, Role::product, autotune::h200())) {
        if (candidate.legal() && !families::makes_rank_rows(candidate.configuration)) return candidate.configuration;
    }
    throw std::runtime_error("there is none");
}

TEST(SearchSpace, ThePlanHasWhatWasChosen) {
    const Problem problem = autotune::small_problem();
    for (const Request& request : step_requests(problem, 2048)) {
        for (const Role role : chosen_roles(problem, request)) {
            for (const tuning::Candidate& candidate : search_space(problem, request, role, autotune::h200())) {
                if (!candidate.legal()) continue;
                Choices choices;
                if (role == Role::xa || role == Role::yb) choices.set(Role::product, reads_rank_rows(problem, request));
                choices.set(role, candidate.configuration);
                const Plan plan = make_plan(problem, request, autotune::h200(), choices);
                EXPECT_EQ(plan.at(role).spec.family, candidate.configuration.family);
                EXPECT_EQ(plan.at(role).spec.dynamic_shared, candidate.shared_bytes) << candidate.name;
            }
        }
    }
}

TEST(SearchSpace, TheEnvironmentChoosesAmongInstructions) {
    const Problem problem = autotune::small_problem();
    for (const Request& request : step_requests(problem, 2048)) {
        if (!std::holds_alternative<Forward>(request)) continue;
        const auto heuristic_family = [&] {
            const tuning::SearchSpace space = search_space(problem, request, Role::product, autotune::h200());
            return space[*tuning::heuristic_choice(space)].configuration.family;
        };
        const auto legal_families = [&] {
            std::set<std::string> families;
            for (const tuning::Candidate& candidate : search_space(problem, request, Role::product, autotune::h200())) {
                if (candidate.legal()) families.insert(candidate.configuration.family);
            }
            return families;
        };
        EXPECT_EQ(legal_families(), (std::set<std::string>{"grouped_product_mma", "grouped_product_wgmma"}));
        ASSERT_EQ(setenv("SMLORA_INSTRUCTIONS", "wgmma", 1), 0);
        EXPECT_EQ(heuristic_family(), "grouped_product_wgmma");
        EXPECT_EQ(legal_families(), std::set<std::string>{"grouped_product_wgmma"});
        ASSERT_EQ(setenv("SMLORA_INSTRUCTIONS", "mma", 1), 0);
        EXPECT_EQ(heuristic_family(), "grouped_product_mma");
        ASSERT_EQ(setenv("SMLORA_INSTRUCTIONS", "tcgen05", 1), 0);
        try {
            static_cast<void>(heuristic_family());
            ADD_FAILURE() << "accepted";
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            EXPECT_STREQ(error.what(), "SMLORA_INSTRUCTIONS: expected mma or wgmma, got tcgen05");
        }
        unsetenv("SMLORA_INSTRUCTIONS");
    }
}

TEST(SearchSpace, WhatIsNoCandidateIsNotFollowed) {
    const Problem problem = autotune::small_problem();
    const Request request = step_requests(problem, 2048).at(0);
    Choices choices;
    choices.set(Role::product, tuning::Configuration{"grouped_product_mma", {{"TILE_M", 7}}});
    EXPECT_EQ(make_plan(problem, request, autotune::h200(), choices).at(Role::product).spec,
              make_plan(problem, request, autotune::h200()).at(Role::product).spec);
    // Legal on another GPU, but not here.
    const gpu::DeviceFacts small = gpu::facts_of(gpu::arch_from_name("sm_86"));
    for (const tuning::Candidate& candidate : search_space(problem, request, Role::product, autotune::h200())) {
        choices.set(Role::product, candidate.configuration);
        const Plan plan = make_plan(problem, request, small, choices);
        EXPECT_LE(plan.at(Role::product).spec.dynamic_shared, static_cast<unsigned>(small.shared_bytes_per_block));
    }
}

TEST(SearchSpace, TilesThatWereNotMeasuredAreNoHeuristicChoice) {
    for (const std::int64_t T : {1, 16, 256, 4096, 65536}) {
        const Problem problem = autotune::small_problem();
        for (const Request& request : step_requests(problem, T)) {
            const Plan plan = make_plan(problem, request, autotune::h200());
            for (const char* further : {"TILE_M=256", "TILE_N=256 TILE_K=64"}) {
                if (!plan.has(Role::product)) continue;
                EXPECT_EQ(jit::readable(plan.at(Role::product).spec).find(further), std::string::npos);
            }
        }
    }
}

TEST(SearchSpace, ADeviceThatIsTooSmallIsToldOf) {
    gpu::DeviceFacts tiny = autotune::h200();
    tiny.name = "a watch";
    tiny.shared_bytes_per_block = 4096;
    try {
        static_cast<void>(
            make_plan(autotune::small_problem(), step_requests(autotune::small_problem(), 64).at(0), tiny));
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::unsupported);
        EXPECT_NE(std::string(error.what()).find("a watch has 4096"), std::string::npos) << error.what();
    }
}

}  // namespace
}  // namespace smlora::plan
