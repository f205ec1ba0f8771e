#include "plan/prewarm_command.hpp"

#include <gtest/gtest.h>

namespace smlora::plan {
namespace {

TEST(PrewarmCommand, SaysEverythingThatTheKernelsDependOn) {
    Problem problem;
    problem.E = 8;
    problem.K = 64;
    problem.N = 32;
    problem.R = 4;
    problem.top_k = 2;
    Forward forward;
    forward.bucket = 12;
    EXPECT_EQ(prewarm_command(problem, forward, "sm_90a"),
              "smlora-tune prewarm --arch sm_90a --shape 8,64,32,4,2 --tokens 4096 --dtype bf16 --adapter-dtype bf16 "
              "--gate-dtype fp32 --index-dtype int32 --weight-layout ekn --x-rows token --y-rows scattered");
    problem.dtype = problem.gate_dtype = DType::fp16;
    problem.adapter_dtype = DType::fp32;
    problem.index_dtype = DType::int64;
    problem.weight_layout = WeightLayout::enk;
    problem.x_rows = RowOrder::grouped;
    problem.y_rows = RowOrder::token;
    problem.bias = problem.gates = true;
    problem.weights = usual_format(Encoding::nf4);
    EXPECT_EQ(
        prewarm_command(problem, Route{}, "sm_80"),
        "smlora-tune prewarm --arch sm_80 --shape 8,64,32,4,2 --dtype fp16 --adapter-dtype fp32 --gate-dtype fp16 "
        "--index-dtype int64 --weight-layout enk --x-rows grouped --y-rows token --bias --gates --weights nf4");
    problem.weights.block = 128;
    problem.weights.outer_block = 256;
    problem.weights.scales = DType::uint8;
    problem.weights.parts = 2;
    EXPECT_TRUE(prewarm_command(problem, Route{}, "sm_80").ends_with(" --weights nf4:128:double:parts2"));
    problem.weights = usual_format(Encoding::mxfp4);
    problem.weights.arranged = true;
    EXPECT_TRUE(prewarm_command(problem, Route{}, "sm_90a").ends_with(" --weights mxfp4:arranged"));
}

}  // namespace
}  // namespace smlora::plan
