// Candidates: legal ones fit their device, and the plan is made from them.
#include "plan/search_space.hpp"

#include "families/family.hpp"
#include "plan/step_kernels.hpp"
#include "tuning/bucket.hpp"
#include "unit/autotune/tuning_fixtures.hpp"

#include <smlora/error.hpp>

#include <algorithm>
#include <random>
#include <set>
#include <stdexcept>
#include <string_view>

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

/// Experts and sizes, on one GPU.
Problem sized(std::int64_t E, std::int64_t K, std::int64_t N, std::int64_t R = 16) {
    Problem problem;
    problem.E = E;
    problem.K = K;
    problem.N = N;
    problem.R = R;
    problem.top_k = 8;
    return problem;
}

constexpr std::string_view once = "_once";

/// The names of candidates of a product whose weights leave L2 first: of forward, or of dX.
std::set<std::string> names_of_once(const Problem& problem, std::int64_t T, bool dx = false) {
    std::set<std::string> names;
    const Request request = step_requests(problem, T).at(dx ? 1 : 0);
    EXPECT_EQ(std::holds_alternative<BackwardInput>(request), dx);
    for (const tuning::Candidate& candidate : search_space(problem, request, Role::product, autotune::h200())) {
        EXPECT_EQ(candidate.name.ends_with(once), candidate.configuration.at("WEIGHTS_ONCE", 0) == 1);
        if (candidate.legal() && candidate.name.ends_with(once)) names.insert(candidate.name);
    }
    return names;
}

TEST(SearchSpace, WeightsLeaveL2FirstWhereTheyAreReadOnce) {
    const std::set<std::string> in_a_tile{"wgmma_144_by8_s4_32_rank_rows_once", "wgmma_144_by8_s4_48_once"};
    const std::set<std::string> in_a_pair{"wgmma_144_by8_s4_32_pairs_rank_rows_once",
                                          "wgmma_144_by8_s4_32_pairs_rank_rows_bands_once",
                                          "wgmma_144_by8_s4_48_pairs_once"};
    const std::set<std::string> none;
    Problem problem = sized(128, 2048, 1536);
    EXPECT_EQ(names_of_once(sized(130, 2048, 1536), 512), none) << "fewer than 32 rows an expert";
    EXPECT_EQ(names_of_once(problem, 512), in_a_tile);
    EXPECT_EQ(names_of_once(problem, 2048), in_a_tile) << "128";
    EXPECT_EQ(names_of_once(sized(122, 2048, 1536), 2048), in_a_pair) << "134, so that many have more than 144";
    EXPECT_EQ(names_of_once(problem, 4096), in_a_pair);
    EXPECT_EQ(names_of_once(sized(119, 2048, 1536), 4096), none) << "275, so that many have more than 288";
    EXPECT_EQ(names_of_once(problem, 16384), none);
    EXPECT_EQ(names_of_once(sized(256, 512, 2048), 2048), none) << "a short reduction";
    EXPECT_EQ(names_of_once(sized(256, 768, 2048, 256), 2048), none) << "the adapter's part does not count";
    // Where the reduction is contiguous there are none, whatever the layout is called.
    EXPECT_EQ(names_of_once(problem, 4096, true), none);
    problem.weight_layout = WeightLayout::enk;
    EXPECT_EQ(names_of_once(problem, 4096), none);
    EXPECT_EQ(names_of_once(problem, 4096, true), in_a_pair);
    EXPECT_EQ(names_of_once(sized(128, 2048, 1536, 0), 4096), std::set<std::string>{"wgmma_144_by8_s4_48_pairs_once"});
    EXPECT_EQ(names_of_once(sized(128, 2048, 256), 2048), in_a_tile) << "one column tile";
}

TEST(SearchSpace, WeightsThatLeaveL2FirstArePredictedToPayAsMeasured) {
    struct Measured {
        Problem problem;
        std::int64_t T;
        double share;  ///< of the time without
    };
    // On an H200; of two orders of tiles the mean.
    for (const auto& [problem, T, share] :
         {Measured{sized(256, 2048, 1024), 2048, 287.6 / 297.1}, Measured{sized(512, 2048, 1536), 16384, 1314.5 / 1340},
          Measured{sized(64, 2048, 2048), 2048, 222.1 / 225.4}, Measured{sized(128, 2048, 1536), 4096, 331.0 / 337}}) {
        const Request request = step_requests(problem, T).at(0);
        const tuning::SearchSpace space = search_space(problem, request, Role::product, autotune::h200());
        const tuning::Candidate& best = space[*tuning::heuristic_choice(space)];
        EXPECT_TRUE(best.name.ends_with(once)) << best.name << " for " << to_string(problem);
        const std::string other = best.name.substr(0, best.name.size() - once.size());
        const auto without = std::find_if(space.begin(), space.end(), [&](const auto& c) { return c.name == other; });
        ASSERT_NE(without, space.end()) << other;
        EXPECT_NEAR(best.predicted_seconds / without->predicted_seconds, share, 0.012) << to_string(problem);
    }
    const Problem problem = sized(128, 2048, 1536);
    const Plan plan = make_plan(problem, step_requests(problem, 16384).at(0), autotune::h200());
    EXPECT_NE(jit::readable(plan.at(Role::product).spec).find("WEIGHTS_ONCE=0"), std::string::npos);
}

/// As in records of before weights could leave L2 first: without the constant.
TEST(SearchSpace, AConfigurationWithoutTheConstantKeepsWeightsInL2) {
    const Problem problem = sized(128, 2048, 1536);
    const Request request = step_requests(problem, 4096).at(0);
    const tuning::Configuration recorded{"grouped_product_wgmma",
                                         {{"TILE_ROWS", 144},
                                          {"STAGES", 4},
                                          {"STAGING_ROWS", 32},
                                          {"ROW_STEP", 8},
                                          {"CLUSTER", 2},
                                          {"MAKES_RANK_ROWS", 1},
                                          {"BANDS", 1}}};
    Choices choices;
    choices.set(Role::product, recorded);
    EXPECT_EQ(configuration_for(problem, request, Role::product, autotune::h200(), choices), recorded);
    const auto kernel = [&] {
        return jit::readable(make_plan(problem, request, autotune::h200(), choices).at(Role::product).spec);
    };
    EXPECT_NE(kernel().find("WEIGHTS_ONCE=0"), std::string::npos) << kernel();
    tuning::Configuration first = recorded;
    first.values.emplace_back("WEIGHTS_ONCE", 1);
    choices.set(Role::product, first);
    EXPECT_NE(kernel().find("WEIGHTS_ONCE=1"), std::string::npos) << kernel();
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
