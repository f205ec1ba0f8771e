// Products that decode packed weights on the way: every blocking, not only the one that the cost model prefers, against
// the fp64 reference on the decoded weights.
#include "engine/cuda_call.hpp"
#include "operations/cases.hpp"
#include "ops/projection_call.hpp"
#include "plan/search_space.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace smlora::test {
namespace {

class PackedWeights : public OnCases {
 protected:
    void SetUp() override {
        OnCases::SetUp();
        if (IsSkipped()) return;
        if (backend() == Backend::cpu) GTEST_SKIP() << "the CPU backend has no tiles";
    }

    /// Calls `check()` after the operation that `args` describes ran with each blocking, or the first `most` of each
    /// family.
    template <class Request, class Args, class Check>
    void with_each_blocking(const Projection& p, const Args& args, const Check& check, std::size_t most = 100) {
        engine::CudaCall call(engine(), {});
        const ops::Projection projection = ops::projection_of(args, p.T);
        auto request = ops::request_of<Request>(p.problem, projection, call.unpack_limit());
        ASSERT_TRUE(request.packed);
        std::map<std::string, std::size_t> checked;
        for (const auto& candidate : plan::search_space(p.problem, request, plan::Role::product, call.facts())) {
            const std::string& family = candidate.configuration.family;
            if (!candidate.refusal.empty() || checked[family] == most) continue;
            SCOPED_TRACE(candidate.name);
            plan::Choices choices;
            choices.set(plan::Role::decoding, candidate.configuration);
            plan::Plan plan = plan::make_plan(p.problem, request, call.facts(), choices);
            ASSERT_FALSE(plan.has(plan::Role::unpack));
            call.load(plan);
            const ops::ProjectionCall product(call, plan, p.problem, projection, request.packing, request.unpack);
            product.launch_product();
            product.launch_sum();
            synchronize(p.engine, {});
            check();
            ++checked[family];
        }
        ASSERT_FALSE(checked.empty());
        for (const auto& [family, count] : checked) {
            // Ranks above 64 are not for all of them.
            if (count > 0) {
                EXPECT_GE(count, std::min<std::size_t>(3, most)) << family;
            }
        }
    }
};

TEST_P(PackedWeights, ForwardMatchesTheReferenceWithEachBlocking) {
    const Projection p(engine(), test_case());
    Array y = p.make_y();
    ForwardArgs args = p.forward_args();
    args.y = y.view();
    with_each_blocking<plan::Forward>(p, args, [&] {
        y.download();
        expect_y(p, y);
        y.poison();
    });
    EXPECT_TRUE(p.encoded->is_unchanged());
}

TEST_P(PackedWeights, BackwardInputMatchesTheReferenceWithEachBlocking) {
    const Projection p(engine(), test_case());
    Array dx = p.make_dx();
    BackwardInputArgs args = p.backward_input_args();
    args.dx = dx.view();
    with_each_blocking<plan::BackwardInput>(p, args, [&] {
        dx.download();
        expect_dx(p, dx);
        dx.poison();
    });
}

SMLORA_ON_CASES(Packed, PackedWeights, packed_cases());

/// Every format, in both layouts: a row with a single 1 takes a row or a column out of the matrix.
Cases exact_cases() {
    const Problem p = with_rows(shape(1, 192, 320, 0, 1), RowOrder::grouped, RowOrder::grouped);
    const std::vector<std::pair<const char*, WeightFormat>> formats{
        {"mxfp4", usual_format(Encoding::mxfp4)},
        {"mxfp8", usual_format(Encoding::mxfp8)},
        {"fp8", usual_format(Encoding::fp8)},
        {"fp8_64", {.encoding = Encoding::fp8, .block = 64}},
        {"nvfp4", nvfp4_format(GlobalScale::factor, 1)},
        {"nvfp4_divisor", nvfp4_format(GlobalScale::divisor, 1)},
        {"nf4", usual_format(Encoding::nf4)},
        {"fp4", usual_format(Encoding::fp4)},
        {"int4_32", int4_format(32)},
        {"int4_64", int4_format(64)},
    };
    Cases cases;
    for (const auto& [name, format] : formats) {
        cases.push_back(packed_case(std::string(name) + "_enk", with(p, WeightLayout::enk), p.K, {}, format));
        cases.push_back(packed_case(std::string(name) + "_ekn", p, p.K, {}, format));
    }
    return cases;
}

class DecodedExactly : public PackedWeights {
 protected:
    /// The weights that the library unpacks, [rows, columns].
    Array unpacked(const Projection& p) const {
        const Weight& W = p.encoded->weight();
        Array values(engine(), DType::bf16, {{1, W.rows, W.columns}});
        dequantize(engine(), {}, {W, values.view()});
        synchronize(engine(), {});
        values.download();
        return values;
    }

    /// Of the rows of `out`, which should be those of the matrix, or its columns.
    static std::int64_t differing(const Array& out, const Array& matrix, bool transposed) {
        const std::int64_t rows = transposed ? out.width() : out.rows(), columns = matrix.width();
        std::int64_t wrong = 0;
        for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = 0; c < columns; ++c) {
                wrong += out.at(transposed ? c * rows + r : r * columns + c) != matrix.at(r * columns + c);
            }
        }
        return wrong;
    }
};

TEST_P(DecodedExactly, InForward) {
    Projection p(engine(), test_case());
    const std::int64_t K = p.problem.K;
    p.x.fill([&](std::int64_t i) { return i / K == i % K ? 1.0 : 0.0; });
    Array y = p.make_y();
    ForwardArgs args = p.forward_args();
    args.y = y.view();
    const auto compare = [&] {
        y.download();
        EXPECT_EQ(differing(y, unpacked(p), p.problem.weight_layout == WeightLayout::enk), 0);
    };
    with_each_blocking<plan::Forward>(p, args, compare, 1);
}

TEST_P(DecodedExactly, InBackwardInput) {
    Case c = test_case();
    c.T = c.problem.N;
    Projection p(engine(), c);
    const std::int64_t N = p.problem.N;
    p.dy.fill([&](std::int64_t i) { return i / N == i % N ? 1.0 : 0.0; });
    Array dx = p.make_dx();
    BackwardInputArgs args = p.backward_input_args();
    args.dx = dx.view();
    const auto compare = [&] {
        dx.download();
        EXPECT_EQ(differing(dx, unpacked(p), p.problem.weight_layout == WeightLayout::ekn), 0);
    };
    with_each_blocking<plan::BackwardInput>(p, args, compare, 1);
}

SMLORA_ON_CASES(Formats, DecodedExactly, exact_cases());

}  // namespace
}  // namespace smlora::test
