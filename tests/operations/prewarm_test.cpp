// A step after prewarming compiles nothing.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <smlora/cache.hpp>

#include <cstdint>
#include <optional>
#include <utility>

namespace smlora::test {
namespace {

class Prewarming : public OnGpu {
 protected:
    /// One cache for all, so that problems share the kernels that they can.
    [[nodiscard]] Engine engine_with_limit(std::optional<std::uint64_t> bytes) const {
        EngineOptions options = options_of(backend(), folder_);
        options.unpack_limit_bytes = bytes;
        return Engine(std::move(options));
    }

    /// What a step compiles after its kernels, in a process that has none in memory.
    void expect_covered(const Problem& problem, AdapterLayout adapter, std::optional<std::uint64_t> limit = {}) const {
        SCOPED_TRACE(to_string(problem));
        const Case one{.problem = problem, .T = 24, .adapter = adapter};
        (void)prewarm(engine_with_limit(limit), {.problems = {problem}, .tokens = {one.T}, .archs = {}, .jobs = 0});
        const Engine engine = engine_with_limit(limit);
        const Projection p(engine, one);
        const StepRun run = run_step(p);
        expect_y(p, run.forward.y);
        EXPECT_EQ(cache_stats(engine).compiles, 0U);
        EXPECT_GT(cache_stats(engine).disk_hits, 0U);
    }

 private:
    TemporaryFolder folder_;
};

TEST_F(Prewarming, CoversAStepOfEveryEncoding) {
    const Problem p = with(shape(5, 64, 96, 8, 2), WeightLayout::enk);
    expect_covered(p, AdapterLayout::contiguous);
    WeightFormat doubled = usual_format(Encoding::nf4);
    doubled.scales = DType::uint8;
    doubled.outer_block = 256;
    for (const WeightFormat& format :
         {usual_format(Encoding::nf4), doubled, usual_format(Encoding::fp4), usual_format(Encoding::int8),
          usual_format(Encoding::mxfp4), usual_format(Encoding::fp8), usual_format(Encoding::mxfp8),
          usual_format(Encoding::nvfp4), usual_format(Encoding::int4)}) {
        expect_covered(with_weights(p, format), AdapterLayout::contiguous);
    }
    for (WeightFormat format : {usual_format(Encoding::mxfp4), usual_format(Encoding::int4)}) {
        format.arranged = true;
        expect_covered(with_weights(with(shape(5, 96, 160, 8, 2), WeightLayout::enk), format),
                       AdapterLayout::contiguous);
    }
}

TEST_F(Prewarming, CoversAdaptersThatArePacked) {
    for (const std::int64_t R : {1, 12, 17}) {
        const Problem p = with_adapter(shape(5, 64, 96, R, 2), DType::fp32);
        expect_covered(p, AdapterLayout::contiguous);
        expect_covered(p, AdapterLayout::peft);
    }
}

TEST_F(Prewarming, CoversRowsOfWhichOnlyOneSideIsWholeVectors) {
    for (const auto& [K, N] : {std::pair(12, 64), std::pair(64, 12)}) {
        const Problem p = with_rows(shape(5, K, N, 8, 2), RowOrder::grouped, RowOrder::token);
        expect_covered(with_gates(p, DType::fp32), AdapterLayout::contiguous);
    }
}

TEST_F(Prewarming, CoversTheGatesOfTheActivationBeforeThem) {
    const Problem down = with_gates(with_rows(shape(5, 64, 96, 8, 2), RowOrder::grouped, RowOrder::token), DType::fp32);
    (void)prewarm(engine_with_limit({}), {.problems = {down},
                                          .tokens = {24},
                                          .archs = {},
                                          .jobs = 0,
                                          .activations = {{.width = down.K, .dtype = down.dtype}}});
    const Engine engine = engine_with_limit({});
    const Projection p(engine, {.problem = down, .T = 24});
    Array da = p.make_dx();
    BackwardInputArgs product = p.backward_input_args();
    product.gates = {};
    product.before_gates = true;
    product.dx = da.view();
    backward_input(engine, {}, down, product);
    for (const bool writes_a : {false, true}) {
        const Array h = p.rows_of(RowOrder::grouped, 2 * down.K);
        Array dh = p.rows_of(RowOrder::grouped, 2 * down.K);
        Array a = p.rows_of(RowOrder::grouped, down.K);
        Array dgates = p.make_dgates();
        activation_backward(engine, {}, down,
                            {.h = h.view(),
                             .da = da.view(),
                             .dh = dh.view(),
                             .a = writes_a ? a.view() : Tensor{},
                             .gates = p.gates.view(),
                             .sorted_scattered_idxs = p.routing.sorted_scattered_idxs.view(),
                             .dgates = dgates.view()});
        synchronize(engine, {});
    }
    EXPECT_EQ(cache_stats(engine).compiles, 0U);
    EXPECT_GT(cache_stats(engine).disk_hits, 0U);
}

TEST_F(Prewarming, CoversSlicesOfExperts) {
    const Problem p = with_weights(with(shape(5, 64, 96, 8, 2), WeightLayout::enk), usual_format(Encoding::mxfp4));
    // Two experts at once, of which the last slice lacks one.
    expect_covered(p, AdapterLayout::peft, 2 * 64 * 96 * 2);
}

TEST_F(Prewarming, CoversPartsHoweverTheyWereToldApartWhereThatMakesNoDifference) {
    Problem p = with_weights(with(shape(5, 64, 96, 8, 2), WeightLayout::enk), usual_format(Encoding::fp8));
    p.weights.block = 16;
    const Engine engine = engine_with_limit({});
    const auto compiled = [&] {
        return prewarm(engine, {.problems = {p}, .tokens = {24}, .archs = {}, .jobs = 0}).compiled;
    };
    EXPECT_GT(compiled(), 0U);
    p.weights.parts = 2;  // 48 rows each, three squares
    EXPECT_EQ(compiled(), 0U);
    p.weights.parts = 4;  // 24 rows each, one and a half
    EXPECT_GT(compiled(), 0U);
}

}  // namespace
}  // namespace smlora::test
