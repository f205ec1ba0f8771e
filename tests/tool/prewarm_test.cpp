// Which problems prewarm compiles for: those of a job with PEFT and of a rank of expert parallelism. Nothing is
// compiled here.
#include "tool/program.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace smlora::tool {
namespace {

class Prewarm : public ProgramTest {
 protected:
    /// The problems of a dry run.
    [[nodiscard]] std::vector<std::string> problems(std::vector<std::string> arguments) const {
        arguments.insert(arguments.begin(), {"prewarm", "--dry-run", "--json", "--arch", "sm_90a"});
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
        std::vector<std::string> texts;
        const nlohmann::json report = outcome.json();
        for (const auto& problem : report["problems"]) texts.push_back(problem["problem"]);
        EXPECT_GT(report["kernels"], 0);
        EXPECT_EQ(report["compiled"], 0);
        return texts;
    }
};

using Texts = std::vector<std::string>;

TEST_F(Prewarm, TakesTheTypesOfPeftForAModel) {
    const Texts peft{"E64 K2048 N2048 R16 k8 bf16 enk token->grouped adapter:fp32",
                     "E64 K1024 N2048 R16 k8 bf16 enk grouped->token adapter:fp32 gates:bf16"};
    EXPECT_EQ(problems({"--model", "olmoe"}), peft);
    EXPECT_EQ(problems({"--model", "olmoe", "--peft"}), peft);
    EXPECT_EQ(problems({"--model", "olmoe", "--no-peft"}),
              (Texts{"E64 K2048 N2048 R16 k8 bf16 enk token->grouped",
                     "E64 K1024 N2048 R16 k8 bf16 enk grouped->token gates:fp32"}));
    EXPECT_EQ(problems({"--model", "mixtral", "--projection", "down"})[0],
              "E8 K14336 N4096 R16 k2 bf16 enk grouped->token adapter:fp32 gates:fp32");
}

TEST_F(Prewarm, TakesTypesThatAreSaid) {
    EXPECT_EQ(problems({"--model", "olmoe", "--projection", "down", "--adapter-dtype", "bf16", "--gate-dtype", "fp32"}),
              (Texts{"E64 K1024 N2048 R16 k8 bf16 enk grouped->token gates:fp32"}));
    EXPECT_EQ(problems({"--shape", "4,64,32,8,2"}), (Texts{"E4 K64 N32 R8 k2 bf16 ekn token->scattered"}));
    EXPECT_EQ(problems({"--shape", "4,64,32,8,2", "--peft"}),
              (Texts{"E4 K64 N32 R8 k2 bf16 ekn token->scattered adapter:fp32"}));
}

TEST_F(Prewarm, TakesBothTypesOfGatesWhereNothingSaysWhich) {
    const std::string config = write("config.json", R"({"model_type": "new", "num_experts": 4, "hidden_size": 64,
        "moe_intermediate_size": 32, "num_experts_per_tok": 2, "hidden_act": "relu2"})");
    EXPECT_EQ(problems({"--config", config}),
              (Texts{"E4 K64 N64 R16 k2 bf16 enk token->grouped adapter:fp32",
                     "E4 K32 N64 R16 k2 bf16 enk grouped->token adapter:fp32 gates:bf16",
                     "E4 K32 N64 R16 k2 bf16 enk grouped->token adapter:fp32 gates:fp32"}));
}

TEST_F(Prewarm, SaysThatTheModelComputesAnActivationThatIsNotKnown) {
    const std::string config = write("config.json", R"({"model_type": "new", "num_experts": 4, "hidden_size": 64,
        "moe_intermediate_size": 32, "num_experts_per_tok": 2, "hidden_act": "relu2"})");
    const std::vector<std::string> command{"prewarm", "--dry-run", "--json", "--arch", "sm_90a", "--config", config};
    const Outcome own = run(command);
    EXPECT_NE(own.err.find("new gate_up: the model's own code computes the activation: none is compiled"),
              std::string::npos)
        << own.err;
    std::vector<std::string> named = command;
    named.insert(named.end(), {"--activation", "reglu"});
    const Outcome with_one = run(named);
    EXPECT_EQ(with_one.err, "");
    EXPECT_GT(with_one.json()["kernels"], own.json()["kernels"]);
}

TEST_F(Prewarm, TakesExpertsWithoutAGateProjection) {
    const std::string config = write("config.json", R"({"model_type": "nemotron_h", "n_routed_experts": 4,
        "hidden_size": 64, "moe_latent_size": 48, "moe_intermediate_size": 32, "num_experts_per_tok": 2})");
    const Texts down{"E4 K32 N48 R16 k2 bf16 enk grouped->token adapter:fp32 gates:bf16",
                     "E4 K32 N48 R16 k2 bf16 enk grouped->token adapter:fp32 gates:fp32"};
    const std::string up = "E4 K48 N32 R16 k2 bf16 enk token->grouped adapter:fp32";
    EXPECT_EQ(problems({"--config", config}), (Texts{up, down[0], down[1]}));
    EXPECT_EQ(problems({"--config", config, "--projection", "gate_up"}), Texts{up});
    EXPECT_EQ(problems({"--config", config, "--projection", "down"}), down);
    const Outcome named =
        run({"prewarm", "--dry-run", "--arch", "sm_90a", "--config", config, "--activation", "reglu"});
    EXPECT_NE(named.err.find("nemotron_h up: the model's own code computes the activation: none is compiled"),
              std::string::npos)
        << named.err;
}

TEST_F(Prewarm, TakesTheExpertsOfARank) {
    EXPECT_EQ(problems({"--model", "qwen3-30b-a3b", "--ep", "8", "--tokens", "4096"}),
              (Texts{"E16 K2048 N1536 R16 k1 bf16 enk token->grouped adapter:fp32",
                     "E16 K768 N2048 R16 k1 bf16 enk grouped->token adapter:fp32"}));
    EXPECT_EQ(problems({"--model", "mixtral", "--ep", "8", "--ep-tokens", "shared", "--tokens", "4096"}),
              (Texts{"E1 K4096 N28672 R16 k2 bf16 enk token->grouped adapter:fp32",
                     "E1 K14336 N4096 R16 k2 bf16 enk grouped->token adapter:fp32 gates:fp32"}));
}

TEST_F(Prewarm, RefusesRanksThatMakeNoSense) {
    const auto error = [&](std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), "prewarm");
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.exit_code, 2);
        return outcome.err;
    };
    EXPECT_NE(error({"--model", "olmoe", "--ep", "3", "--tokens", "64"})
                  .find("ranks of experts: expected a divisor of the 64 experts of olmoe, got 3"),
              std::string::npos);
    EXPECT_NE(error({"--model", "olmoe", "--ep", "2"}).find("--ep: expected --tokens"), std::string::npos);
    EXPECT_NE(error({"--shape", "4,64,32,8,2", "--ep", "2", "--tokens", "64"}).find("--ep: --shape has the experts"),
              std::string::npos);
    EXPECT_NE(error({"--model", "olmoe", "--ep", "0", "--tokens", "64"}).find("--ep"), std::string::npos);
    EXPECT_NE(error({"--model", "olmoe", "--peft", "--no-peft"}).find("--no-peft"), std::string::npos);
}

TEST_F(Prewarm, ADryRunSaysWhatIsThereInALine) {
    const Outcome outcome = run({"prewarm", "--dry-run", "--arch", "sm_90a", "--model", "olmoe", "--tokens", "4096"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("olmoe gate_up: E64 K2048 N2048 R16 k8 bf16 enk token->grouped adapter:fp32, types as "
                               "PEFT has them\n"),
              std::string::npos)
        << outcome.out;
    EXPECT_NE(outcome.out.find(" to compile, 0 found in the cache; "), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace smlora::tool
