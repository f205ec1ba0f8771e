// Policies and shards: what was asked for, what the environment says.
#include "tuning/policy.hpp"

#include "tuning/shard.hpp"
#include "unit/cache/fixtures.hpp"
#include "util/hash.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace smlora::tuning {
namespace {

using smlora::testing::ScopedVariable;

TEST(Policy, TheEnvironmentWinsOverTheDefaultButNotOverAnOption) {
    std::string complaint;
    {
        const ScopedVariable unset("SMLORA_TUNING", nullptr);
        EXPECT_EQ(policy({}, complaint), TuningPolicy::first_use);
        EXPECT_EQ(policy(TuningPolicy::off, complaint), TuningPolicy::off);
    }
    for (const TuningPolicy wanted : {TuningPolicy::first_use, TuningPolicy::off, TuningPolicy::record_only}) {
        const ScopedVariable set("SMLORA_TUNING", std::string(name(wanted)).c_str());
        EXPECT_EQ(policy({}, complaint), wanted);
        EXPECT_EQ(policy(TuningPolicy::off, complaint), TuningPolicy::off);
    }
    EXPECT_EQ(complaint, "");
    const ScopedVariable wrong("SMLORA_TUNING", "always");
    EXPECT_EQ(policy({}, complaint), default_policy);
    EXPECT_NE(complaint.find("\"always\""), std::string::npos) << complaint;
}

TEST(Policy, NothingIsMeasuredAtFirstUseWhereNothingMayBeCompiled) {
    std::string complaint;
    const ScopedVariable unset("SMLORA_TUNING", nullptr);
    const ScopedVariable off("SMLORA_JIT", "off");
    EXPECT_EQ(policy({}, complaint), TuningPolicy::record_only);
    EXPECT_EQ(policy(TuningPolicy::first_use, complaint), TuningPolicy::record_only);
    EXPECT_EQ(policy(TuningPolicy::off, complaint), TuningPolicy::off);
}

TEST(Policy, NamesAreReadBack) {
    EXPECT_EQ(tuning_policy_from_name("first-use"), TuningPolicy::first_use);
    EXPECT_THROW(static_cast<void>(tuning_policy_from_name("first_use")), Error);
    EXPECT_THROW(static_cast<void>(name(static_cast<TuningPolicy>(3))), Error);
}

TEST(Shard, IsReadFromText) {
    EXPECT_EQ(parse_shard("0/1"), (Shard{0, 1}));
    EXPECT_EQ(parse_shard("7/8"), (Shard{7, 8}));
    for (const char* text : {"", "1", "8/8", "-1/4", "1/0", "a/b", "1/2/3", "1/ 2"}) {
        EXPECT_THROW(static_cast<void>(parse_shard(text)), Error) << text;
    }
}

TEST(Shard, EveryKeyBelongsToOneAndTheyShareEvenly) {
    constexpr int count = 5;
    std::array<int, count> owned{};
    for (int i = 0; i < 5000; ++i) {
        const std::string key = util::xxh128_hex(std::to_string(i));
        int owners = 0;
        for (int index = 0; index < count; ++index) {
            if (!Shard{index, count}.owns(key)) continue;
            ++owners;
            ++owned[static_cast<std::size_t>(index)];
        }
        EXPECT_EQ(owners, 1) << key;
    }
    for (const int mine : owned) EXPECT_NEAR(mine, 1000, 150);
}

class Ranks : public ::testing::Test {
    std::vector<std::unique_ptr<ScopedVariable>> cleared_ = [] {
        std::vector<std::unique_ptr<ScopedVariable>> all;
        for (const char* variable :
             {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
              "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID",
              "MPI_LOCALNRANKS", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID",
              "SLURM_STEP_TASKS_PER_NODE"}) {
            all.push_back(std::make_unique<ScopedVariable>(variable, nullptr));
        }
        return all;
    }();
};

TEST_F(Ranks, AreTakenFromEachLauncher) {
    EXPECT_FALSE(rank_from_environment().has_value());
    const ScopedVariable procid("SLURM_PROCID", "3"), ntasks("SLURM_NTASKS", "16"), localid("SLURM_LOCALID", "3");
    EXPECT_FALSE(rank_from_environment().has_value()) << "a script of sbatch is no step";
    const ScopedVariable steps("SLURM_STEP_NUM_TASKS", "16");
    EXPECT_EQ(rank_from_environment()->launcher, "SLURM");
    EXPECT_EQ(rank_from_environment()->local_count, 16) << "nothing says that they are on several machines";
    const ScopedVariable each("SLURM_STEP_TASKS_PER_NODE", "6(x2),4");
    EXPECT_EQ(rank_from_environment()->local_count, 6);
    EXPECT_EQ(rank_from_environment()->shard, (Shard{3, 16}));
    // srun sets these two as well, with --mpi=pmi2.
    const ScopedVariable pmi_rank("PMI_RANK", "2"), pmi_size("PMI_SIZE", "6");
    EXPECT_EQ(rank_from_environment()->launcher, "SLURM");
    const ScopedVariable pmi_local("MPI_LOCALRANKID", "2");
    EXPECT_EQ(rank_from_environment()->launcher, "MPICH");
    EXPECT_EQ(rank_from_environment()->shard, (Shard{2, 6}));
    EXPECT_EQ(rank_from_environment()->local, 2);
    const ScopedVariable rank("OMPI_COMM_WORLD_RANK", "9"), size("OMPI_COMM_WORLD_SIZE", "12"),
        local("OMPI_COMM_WORLD_LOCAL_RANK", "1");
    EXPECT_EQ(rank_from_environment()->launcher, "Open MPI");
    EXPECT_EQ(rank_from_environment()->shard, (Shard{9, 12}));
    EXPECT_EQ(rank_from_environment()->local, 1);
    const ScopedVariable torch_rank("RANK", "5"), world("WORLD_SIZE", "8"), torch_local("LOCAL_RANK", "5");
    EXPECT_EQ(rank_from_environment()->launcher, "torchrun");
    EXPECT_EQ(rank_from_environment()->local, 5);
    const ScopedVariable torch_local_size("LOCAL_WORLD_SIZE", "4");
    EXPECT_EQ(rank_from_environment()->local_count, 4);
}

TEST_F(Ranks, ThatMakeNoSenseAreRefused) {
    struct Case {
        std::vector<std::array<const char*, 2>> variables;
        std::string message;
    };
    for (const auto& [variables, message] : std::vector<Case>{
             {{{"RANK", "8"}, {"WORLD_SIZE", "8"}}, "RANK: expected 0 to 7, as WORLD_SIZE is 8, got \"8\""},
             {{{"RANK", "-1"}, {"WORLD_SIZE", "8"}}, "RANK: expected 0 to 7, as WORLD_SIZE is 8, got \"-1\""},
             {{{"RANK", "first"}, {"WORLD_SIZE", "8"}}, "RANK: expected 0 to 7, as WORLD_SIZE is 8, got \"first\""},
             {{{"RANK", "0"}, {"WORLD_SIZE", "0"}},
              "WORLD_SIZE: expected the number of processes that torchrun started, as RANK is set, got \"0\""},
             {{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "x"}},
              "LOCAL_RANK: expected 0 to 1, as WORLD_SIZE is 2, got \"x\""},
             {{{"OMPI_COMM_WORLD_RANK", "1"}},
              "OMPI_COMM_WORLD_SIZE: expected the number of processes that Open MPI started, as OMPI_COMM_WORLD_RANK "
              "is set, got nothing"},
             {{{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "0"}},
              "PMI_RANK: expected 0 to 1, as PMI_SIZE is 2, got \"2\""},
             {{{"SLURM_PROCID", "4"}, {"SLURM_STEP_NUM_TASKS", "4"}},
              "SLURM_PROCID: expected 0 to 3, as SLURM_STEP_NUM_TASKS is 4, got \"4\""},
             // A later launcher's are not taken instead.
             {{{"RANK", "5"}, {"WORLD_SIZE", "4"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}},
              "RANK: expected 0 to 3, as WORLD_SIZE is 4, got \"5\""},
         }) {
        std::vector<std::unique_ptr<ScopedVariable>> set;
        for (const auto& [name, value] : variables) set.push_back(std::make_unique<ScopedVariable>(name, value));
        try {
            static_cast<void>(rank_from_environment());
            ADD_FAILURE() << "expected " << message;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            EXPECT_EQ(error.what(), message);
        }
    }
}

TEST_F(Ranks, AreNotWhatVariablesOfNoLauncherSay) {
    {
        const ScopedVariable rank("RANK", "16");
        EXPECT_FALSE(rank_from_environment().has_value());
    }
    const ScopedVariable world("WORLD_SIZE", "4"), pmi_rank("PMI_RANK", "9"), pmi_size("PMI_SIZE", "4");
    EXPECT_FALSE(rank_from_environment().has_value());
    const ScopedVariable procid("SLURM_PROCID", "1"), steps("SLURM_STEP_NUM_TASKS", "2");
    EXPECT_EQ(rank_from_environment()->launcher, "SLURM");
}

}  // namespace
}  // namespace smlora::tuning
