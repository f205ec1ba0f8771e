// Every blocking of Hopper's own kernels for the product and the adapter's gradients and of all that decode weights,
// not only the one that the cost model prefers, against the plain reference kernel: as the tuner checks its candidates.
#include "autotune/measurer.hpp"
#include "engine/engine_impl.hpp"
#include "families/gradient_bulk.hpp"
#include "families/gradient_wgmma.hpp"
#include "families/product_wgmma.hpp"
#include "operations/cases.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "support/gpu.hpp"
#include "util/thread_pool.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace smlora::test {
namespace {

class Blocking : public OnCases {
 protected:
    void SetUp() override {
        OnCases::SetUp();
        if (IsSkipped()) return;
        if (backend() == Backend::cpu) GTEST_SKIP() << "the CPU backend has no tiles";
        if (is_of_hopper() && facts().arch.name() != "sm_90a") {
            GTEST_SKIP() << "needs sm_90a, not " << facts().arch.name();
        }
    }

    [[nodiscard]] virtual bool is_of_hopper() const { return true; }

    [[nodiscard]] const gpu::DeviceFacts& facts() const { return gpu::device_facts(engine().impl().options.device); }

    /// Legal on the engine's GPU.
    tuning::SearchSpace blockings(const autotune::MeasuredCase& measured, std::string_view family) const {
        tuning::SearchSpace found;
        for (auto& candidate : plan::search_space(measured.problem, measured.request, measured.role, facts())) {
            if (candidate.configuration.family == family && candidate.refusal.empty()) {
                found.push_back(std::move(candidate));
            }
        }
        return found;
    }

    void expect_right(const autotune::MeasuredCase& measured, const tuning::SearchSpace& space) const {
        autotune::Measurer measurer(engine().impl(), measured);
        std::vector<tuning::Preparation> prepared(space.size() * measurer.parts());
        util::ThreadPool(0).parallel_for(static_cast<std::int64_t>(prepared.size()), [&](std::int64_t i) {
            const auto at = static_cast<std::size_t>(i);
            prepared[at] = measurer.prepare(space[at / measurer.parts()], at % measurer.parts());
        });
        measurer.allocate(1, run_seed());
        for (std::size_t i = 0; i < space.size(); ++i) {
            for (std::size_t part = 0; part < measurer.parts(); ++part) {
                EXPECT_EQ(prepared[i * measurer.parts() + part].refusal, "") << space[i].name;
            }
            EXPECT_EQ(measurer.verify(space[i]).refusal, "") << space[i].name;
        }
    }

    /// Of the test's problem: forward and dX.
    std::vector<autotune::MeasuredCase> products() const {
        std::vector<autotune::MeasuredCase> found;
        for (const plan::Request& request : plan::step_requests(test_case().problem, test_case().T)) {
            if (std::holds_alternative<plan::BackwardLora>(request)) continue;
            autotune::MeasuredCase& measured = found.emplace_back();
            measured.problem = test_case().problem;
            measured.request = request;
            measured.rows.T = test_case().T;
        }
        return found;
    }
};

TEST_P(Blocking, OfTheProductGivesWhatTheReferenceGives) {
    std::size_t checked = 0;
    for (const autotune::MeasuredCase& measured : products()) {
        const tuning::SearchSpace space = blockings(measured, families::product_wgmma.name);
        expect_right(measured, space);
        checked += space.size();
    }
    EXPECT_GE(checked, 10U) << "blockings of forward and dX";
}

/// Those whose weights leave L2 first, of cases that have them in one of their products.
class BlockingOfWeightsOnce : public Blocking {};

TEST_P(BlockingOfWeightsOnce, GivesWhatTheReferenceGives) {
    std::size_t checked = 0;
    for (const autotune::MeasuredCase& measured : products()) {
        tuning::SearchSpace space = blockings(measured, families::product_wgmma.name);
        std::erase_if(space, [](const auto& candidate) { return candidate.configuration.at("WEIGHTS_ONCE", 0) == 0; });
        if (space.empty()) continue;
        expect_right(measured, space);
        checked += space.size();
    }
    const bool pairs = test_case().name.starts_with("pairs");
    const std::size_t made = test_case().problem.R == 0 ? 0 : pairs ? 2 : 1;  // all rank rows first, or in bands
    EXPECT_EQ(checked, made + 1);
}

class GradientBlocking : public Blocking {};

TEST_P(GradientBlocking, GivesWhatTheReferenceGives) {
    autotune::MeasuredCase measured;
    measured.problem = test_case().problem;
    measured.request = plan::step_requests(test_case().problem, test_case().T).back();
    measured.role = plan::Role::gradients;
    measured.rows.T = test_case().T;
    for (const std::string_view family : {families::gradient_wgmma.name, families::gradient_bulk.name}) {
        const tuning::SearchSpace space = blockings(measured, family);
        expect_right(measured, space);
        EXPECT_GE(space.size(), 1U) << family;
    }
}

/// How arranged weights may be taken.
class Decoding : public Blocking {
 protected:
    [[nodiscard]] bool is_of_hopper() const override { return false; }
};

TEST_P(Decoding, GivesWhatTheReferenceGives) {
    for (const std::uint64_t limit : {std::uint64_t{1}, families::default_unpack_limit}) {
        for (const plan::Request& request : plan::step_requests(test_case().problem, test_case().T, limit)) {
            if (!plan::packed(request)) continue;
            autotune::MeasuredCase measured;
            measured.problem = test_case().problem;
            measured.request = request;
            measured.role = plan::Role::decoding;
            measured.rows.T = test_case().T;
            tuning::SearchSpace space = plan::search_space(measured.problem, request, measured.role, facts());
            std::erase_if(space, [](const auto& candidate) { return !candidate.legal(); });
            EXPECT_GE(space.size(), 4U);
            // A limit matters to unpacking alone.
            if (limit == 1) space.erase(space.begin(), space.end() - 1);
            EXPECT_EQ(space.back().name, "unpack");
            expect_right(measured, space);
        }
    }
}

/// Reductions of two steps, where a tile's copies begin while the tile before is stored; ranks of every depth; several
/// tiles of columns and rows. Of 305 rows an expert, the highest tiles have 145 to 160, those of a cluster too.
Cases blocking_cases() {
    using enum RowOrder;
    return {
        {.name = "short", .problem = shape(3, 128, 600, 16, 2), .T = 500},
        {.name = "short_enk", .problem = with(shape(3, 600, 128, 16, 2), WeightLayout::enk), .T = 500},
        {.name = "summed", .problem = with_rows(with_bias(shape(5, 328, 520, 8, 2)), token, token), .T = 500},
        {.name = "R32", .problem = shape(3, 136, 520, 32, 2), .T = 400},
        {.name = "R64", .problem = with(shape(3, 136, 520, 64, 2), WeightLayout::enk), .T = 400},
        {.name = "R96", .problem = shape(3, 136, 520, 96, 2), .T = 400},
        {.name = "base", .problem = shape(3, 128, 600, 0, 2), .T = 500},
        {.name = "tall", .problem = shape(4, 128, 328, 16, 2), .T = 610},
        {.name = "tall_R64", .problem = with(shape(4, 200, 136, 64, 2), WeightLayout::enk), .T = 610},
        {.name = "tall_R96", .problem = with_bias(shape(4, 128, 328, 96, 2)), .T = 610},
    };
}

SMLORA_ON_CASES(Wgmma, Blocking, blocking_cases());

Cases decoding_cases() {
    using enum RowOrder;
    const Problem p = shape(2, 128, 192, 16, 2);
    const Problem enk = with(with_bias(with_rows(p, token, scattered)), WeightLayout::enk);
    return {
        packed_case("mxfp4", enk, 20),
        packed_case("mxfp8", p, 20, {}, usual_format(Encoding::mxfp8)),
        packed_case("fp8", enk, 20, {}, usual_format(Encoding::fp8)),
        packed_case("nf4", p, 20, {}, usual_format(Encoding::nf4)),
        packed_case("nvfp4", enk, 20, {}, nvfp4_format(GlobalScale::divisor, 1)),
        packed_case("int4_32", p, 20, {}, int4_format(32)),
        packed_case("int4_128", enk, 20, {}, int4_format(128)),
    };
}

SMLORA_ON_CASES(Arranged, Decoding, decoding_cases());

/// Experts whose rows are one tile, or one pair of tiles; reductions of whole steps and not; ranks of every depth.
Cases once_cases() {
    return {
        {.name = "one", .problem = shape(3, 1024, 264, 16, 2), .T = 160},
        {.name = "one_dx", .problem = with(shape(3, 264, 1024, 16, 2), WeightLayout::enk), .T = 160},
        {.name = "one_R64", .problem = shape(3, 1032, 264, 64, 2), .T = 130},
        {.name = "pairs", .problem = shape(3, 1024, 264, 16, 2), .T = 350},
        {.name = "pairs_dx", .problem = with_bias(with(shape(3, 264, 1032, 16, 2), WeightLayout::enk)), .T = 350},
        {.name = "pairs_R32", .problem = shape(3, 1032, 264, 32, 2), .T = 340},
        {.name = "pairs_base", .problem = shape(3, 1096, 264, 0, 2), .T = 350},
    };
}

SMLORA_ON_CASES(Wgmma, BlockingOfWeightsOnce, once_cases());

/// Ranks of one instruction and of two, whole blocks of 64 and not; spans that end within a block; experts that are
/// cut, that end within a step, that have nothing or everything; gates; every order of rows and type of gradients.
Cases gradient_blocking_cases() {
    using enum RowOrder;
    return {
        {.name = "R3", .problem = shape(3, 128, 600, 3, 2), .T = 300},
        {.name = "R16_gates",
         .problem = with_gates(with_rows(shape(3, 136, 1096, 16, 2), grouped, token), DType::bf16),
         .T = 300},
        {.name = "R17", .problem = shape(40, 200, 72, 17, 2), .T = 300},
        {.name = "R32", .problem = shape(3, 128, 600, 32, 2), .T = 500},
        {.name = "R24_few", .problem = shape(8, 96, 80, 24, 2), .T = 37},
        {.name = "R64_gates",
         .problem = with_gates(with_rows(shape(3, 136, 520, 64, 2), grouped, token), DType::fp32),
         .T = 400},
        {.name = "R64_fp32", .problem = with_adapter(shape(3, 136, 520, 64, 2), DType::fp32), .T = 300},
        {.name = "R100", .problem = shape(3, 200, 72, 100, 2), .T = 300},
        {.name = "R128_rows", .problem = with_rows(shape(5, 328, 136, 128, 2), scattered, grouped), .T = 300},
        {.name = "R200_gates",
         .problem = with_gates(with_rows(shape(3, 96, 200, 200, 2), grouped, token), DType::fp32),
         .T = 200},
        {.name = "R256", .problem = shape(3, 136, 264, 256, 1), .T = 600},
    };
}

SMLORA_ON_CASES(Wgmma, GradientBlocking, gradient_blocking_cases());

}  // namespace
}  // namespace smlora::test
