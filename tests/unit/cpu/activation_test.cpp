// Gated activations where fp32 ends; everywhere else tests/operations compare them with a reference.
#include <smlora/smlora.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace smlora {
namespace {

TEST(Activation, OfSwigluIsNotZeroBeforeItsValueIs) {
    EngineOptions options;
    options.backend = Backend::cpu;
    options.threads = 1;
    const Engine engine(options);
    Problem problem;
    problem.E = problem.K = problem.N = 1;
    problem.dtype = problem.adapter_dtype = DType::fp32;
    // exp(89) is beyond fp32; silu(-89) is -2e-37, which is not.
    std::array<float, 4> h{-88.5F, -89.0F, 1e4F, 1e4F}, dh{};
    std::array<float, 2> a{}, da{1.0F, 1.0F};
    activation_backward(engine, {}, problem,
                        {.h = {h.data(), DType::fp32, {1, 4}},
                         .da = {da.data(), DType::fp32, {1, 2}},
                         .dh = {dh.data(), DType::fp32, {1, 4}},
                         .a = {a.data(), DType::fp32, {1, 2}}});
    for (std::size_t i = 0; i < 2; ++i) {
        const double g = h[i];
        const double sigmoid = 1 / (1 + std::exp(-g));
        EXPECT_NEAR(a[i] / (g * sigmoid * 1e4), 1, 1e-5) << g;
        EXPECT_NEAR(dh[i] / (sigmoid * (1 + g * (1 - sigmoid)) * 1e4), 1, 1e-5) << g;
        EXPECT_NEAR(dh[2 + i] / (g * sigmoid), 1, 1e-5) << g;
    }
}

}  // namespace
}  // namespace smlora
