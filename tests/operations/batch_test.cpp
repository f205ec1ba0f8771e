// Batch-invariant mode: a token's rows have the same bits alone, among a few and among thousands.
#include "engine/cuda_call.hpp"
#include "operations/cases.hpp"
#include "ops/projection_call.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "support/runs.hpp"
#include "tuning/bucket.hpp"
#include "tuning/determinism.hpp"

#include <smlora/cache.hpp>

#include <fmt/format.h>

#include <cstdlib>
#include <numeric>
#include <utility>
#include <variant>
#include <vector>

namespace smlora::test {
namespace {

using Tokens = std::vector<std::int64_t>;

const Engine& engine_in_batch_mode(Backend backend) {
    static const TemporaryFolder folder;
    const auto options = [](Backend of) {
        EngineOptions chosen = options_of(of, folder);
        if (const char* kept = std::getenv("SMLORA_TEST_CACHE")) chosen.cache_root = kept;
        chosen.determinism = Determinism::batch;
        return chosen;
    };
    static const Engine cpu(options(Backend::cpu));
    if (backend == Backend::cpu) return cpu;
    static const Engine cuda(options(Backend::cuda));
    return cuda;
}

/// So many different tokens of a batch, in no order.
Tokens some_tokens(const Random& random, std::int64_t T, std::int64_t count) {
    Tokens tokens(index(T));
    std::iota(tokens.begin(), tokens.end(), 0);
    std::uint64_t draw = 0;
    for (std::size_t i = 0; i < index(count); ++i) {
        std::swap(tokens[i], tokens[i + random.bits(draw++) % (tokens.size() - i)]);
    }
    tokens.resize(index(count));
    return tokens;
}

/// What some tokens of a whole batch are alone: the same weights, and their own rows, choices and gates.
class Part {
 public:
    Part(const Projection& whole, Tokens tokens)
        : whole_(whole), tokens_(std::move(tokens)), alone(whole.engine, spec_of(whole, tokens_), fresh, chosen()) {
        copy_rows(whole.x, alone.x, whole.problem.x_rows);
        copy_rows(whole.dy, alone.dy, whole.problem.y_rows);
        if (!whole.problem.gates) return;
        const std::int64_t k = whole.problem.top_k;
        alone.gates.fill([&](std::int64_t f) { return whole.gates.at(tokens_[index(f / k)] * k + f % k); });
    }

    /// Of what was computed for the whole and alone, in one of the orders.
    void expect_same_rows(const Array& of_whole, const Array& of_part, RowOrder order) const {
        std::int64_t other = 0;
        std::int64_t compared = 0;
        for (std::int64_t r = 0; r < of_part.rows(); ++r) {
            if (alone.unused(order, r)) continue;
            ++compared;
            if (!of_part.same_row(r, of_whole, row_in_whole(order, r))) ++other;
        }
        EXPECT_EQ(other, 0) << "rows of " << compared << " with other bits";
    }
    /// Of values for each entry [T, top_k].
    void expect_same_entries(const Array& of_whole, const Array& of_part) const {
        const std::int64_t tokens = of_part.rows();
        for (std::int64_t t = 0; t < tokens; ++t) {
            EXPECT_TRUE(of_part.same_row(t, of_whole, tokens_[index(t)])) << "token " << t;
        }
    }

 private:
    static Case spec_of(const Projection& whole, const Tokens& tokens) {
        Case spec = whole.spec;
        spec.T = spec.T_on_cpu = static_cast<std::int64_t>(tokens.size());
        return spec;
    }
    [[nodiscard]] Tokens chosen() const {
        Tokens top_idx;
        for (const std::int64_t t : tokens_) {
            for (std::int64_t k = 0; k < whole_.problem.top_k; ++k) {
                const std::int64_t f = t * whole_.problem.top_k + k;
                const std::int64_t i = whole_.host_routing.position_of(f);
                top_idx.push_back(whole_.host_routing.left_out(f) ? -1 : whole_.host_routing.expert(i));
            }
        }
        return top_idx;
    }
    /// The row of the whole that row r of the part is.
    [[nodiscard]] std::int64_t row_in_whole(RowOrder order, std::int64_t r) const {
        if (order == RowOrder::token) return tokens_[index(r)];
        const std::int64_t k = whole_.problem.top_k;
        const std::int64_t f = order == RowOrder::grouped ? alone.host_routing.entry(r) : r;
        const std::int64_t entry = tokens_[index(f / k)] * k + f % k;
        return order == RowOrder::grouped ? whole_.host_routing.position_of(entry) : entry;
    }
    void copy_rows(const Array& from, Array& to, RowOrder order) const {
        const std::int64_t width = to.width();
        Values values(index(to.numel()));
        for (std::int64_t r = 0; r < to.rows(); ++r) {
            if (!alone.unused(order, r)) from.row(row_in_whole(order, r), values.data() + r * width);
        }
        to.fill([&](std::int64_t i) { return values[index(i)]; },
                [&](std::int64_t r) { return alone.unused(order, r); });
    }

    const Projection& whole_;
    const Tokens tokens_;

 public:
    workload::Projection alone;
};

/// Every output that has a row for each row, token or entry.
struct Rows {
    ForwardRun forward;
    BackwardInputRun backward;
};

Rows rows_of(const workload::Projection& p) {
    Rows rows{{p.make_y(), {}}, {p.make_dx(), {}, {}}};
    ForwardArgs forward_args = p.forward_args();
    forward_args.y = rows.forward.y.view();
    BackwardInputArgs backward_args = p.backward_input_args();
    backward_args.dx = rows.backward.dx.view();
    if (p.problem.R > 0) {
        rows.forward.xa = p.make_ranked();
        forward_args.xa = p.ranked_view(rows.forward.xa);
        rows.backward.yb = p.make_ranked();
        backward_args.yb = p.ranked_view(rows.backward.yb);
    }
    if (p.problem.gates) {
        rows.backward.dgates = p.make_dgates();
        backward_args.dgates = rows.backward.dgates.view();
        backward_args.x = p.x.view();
        backward_args.bias = p.bias.view();
    }
    forward(p.engine, {}, p.problem, forward_args);
    backward_input(p.engine, {}, p.problem, backward_args);
    synchronize(p.engine, {});
    for (Array* const output :
         {&rows.forward.y, &rows.forward.xa, &rows.backward.dx, &rows.backward.yb, &rows.backward.dgates}) {
        if (output->given()) output->download();
    }
    return rows;
}

void expect_same(const Part& part, const Rows& whole, const Rows& alone) {
    const Problem& problem = part.alone.problem;
    part.expect_same_rows(whole.forward.y, alone.forward.y, problem.y_rows);
    part.expect_same_rows(whole.backward.dx, alone.backward.dx, problem.x_rows);
    if (problem.R > 0) {
        part.expect_same_rows(whole.forward.xa, alone.forward.xa, RowOrder::grouped);
        part.expect_same_rows(whole.backward.yb, alone.backward.yb, RowOrder::grouped);
    }
    if (problem.gates) part.expect_same_entries(whole.backward.dgates, alone.backward.dgates);
}

class BatchInvariant : public OnCases {
 protected:
    static void SetUpTestSuite() {}  // other kernels than those of the engine that tests share
};

TEST_P(BatchInvariant, RowsHaveTheBitsThatTheyHaveAlone) {
    const Engine& engine = engine_in_batch_mode(backend());
    const Projection p(engine, test_case());
    const Rows whole = rows_of(p);
    const std::uint64_t compiles = cache_stats(engine).compiles;
    for (const std::int64_t count : {1, 2, 7, 40, 300}) {
        if (count >= p.T) break;
        SCOPED_TRACE(fmt::format("{} of {} tokens", count, p.T));
        const Part part(p, some_tokens(fresh(fmt::format("tokens {}", count)), p.T, count));
        expect_same(part, whole, rows_of(part.alone));
    }
    EXPECT_EQ(cache_stats(engine).compiles, compiles) << "a smaller batch has other kernels";
}

/// Where a batch crosses every limit of an operation's: several tiles of an expert, and one row of it.
Cases batch_cases() {
    using enum RowOrder;
    const Problem p = shape(8, 96, 80, 16, 2);
    const Problem summed = with_bias(with_gates(with_rows(p, token, token), DType::fp32));
    const Problem packed = with(with_rows(shape(3, 192, 320, 16, 2), grouped, grouped), WeightLayout::enk);
    return {
        {.name = "bf16", .problem = p, .T = 700},
        {.name = "bf16_enk", .problem = with(p, WeightLayout::enk), .T = 700, .left_out = 0.2},
        {.name = "summed", .problem = summed, .T = 700, .left_out = 0.2},
        {.name = "grouped_gates",
         .problem = with_gates(with_rows(p, grouped, token), DType::bf16),
         .T = 350,
         .choice = Choice::skewed},
        {.name = "base", .problem = shape(8, 96, 80, 0, 2), .T = 350},
        {.name = "long", .problem = shape(3, 520, 264, 64, 2, DType::fp16), .T = 350},
        {.name = "fp32_adapter", .problem = with_adapter(p, DType::fp32), .T = 350},
        {.name = "fp32", .problem = shape(8, 96, 80, 16, 2, DType::fp32), .T = 350},
        {.name = "odd", .problem = shape(8, 37, 53, 5, 2), .T = 350},
        {.name = "nf4", .problem = with_weights(summed, usual_format(Encoding::nf4)), .T = 350},
        packed_case("mxfp4_arranged", packed, 350),
        packed_case("int4_arranged", with_rows(packed, token, token), 350, {}, int4_format(32)),
    };
}
SMLORA_ON_CASES(Batch, BatchInvariant, batch_cases());

/// Thousands of rows: too long for an emulated GPU.
Cases large_batch_cases() {
    return {
        {.name = "qwen3_gate_up", .problem = shape(128, 2048, 1536, 16, 8), .T = 8192, .T_on_cpu = 400},
        {.name = "olmoe_down",
         .problem =
             with_gates(with_rows(shape(64, 1024, 2048, 16, 8), RowOrder::grouped, RowOrder::token), DType::fp32),
         .T = 8192,
         .T_on_cpu = 400},
        {.name = "long", .problem = with_rows(shape(8, 96, 80, 16, 2), RowOrder::token, RowOrder::token), .T = 20000},
    };
}
SMLORA_ON_CASES(LargeBatch, BatchInvariant, large_batch_cases());

/// The ground that the mode stands on: whichever kernel is chosen, a row is computed from its own inputs alone.
class BatchCandidates : public OnCases {
 protected:
    static void SetUpTestSuite() {}  // each candidate is made here
    void SetUp() override {
        OnCases::SetUp();
        if (!IsSkipped() && backend() == Backend::cpu) GTEST_SKIP() << "the CPU backend has one kernel";
    }

    /// What `args` asks for with one candidate.
    template <class Request, class Args>
    static void launch(const workload::Projection& p, const Args& args, const tuning::Candidate& candidate) {
        engine::CudaCall call(p.engine, {});
        const ops::Projection projection = ops::projection_of(args, p.T);
        plan::Request pinned = ops::request_of<Request>(p.problem, projection, call.unpack_limit());
        plan::set_bucket(pinned, tuning::bucket_of(tuning::batch_tokens));
        const auto& request = std::get<Request>(pinned);
        plan::Choices choices;
        choices.set(request.packed ? plan::Role::decoding : plan::Role::product, candidate.configuration);
        plan::Plan plan = plan::make_plan(p.problem, pinned, call.facts(), choices);
        call.load(plan);
        const ops::ProjectionCall product(call, plan, p.problem, projection, request.packing, request.unpack);
        product.launch_product();
        product.launch_sum();
        synchronize(p.engine, {});
    }
    static Array y_of(const workload::Projection& p, const tuning::Candidate& candidate) {
        Array y = p.make_y();
        ForwardArgs args = p.forward_args();
        args.y = y.view();
        launch<plan::Forward>(p, args, candidate);
        y.download();
        return y;
    }
    static Array dx_of(const workload::Projection& p, const tuning::Candidate& candidate) {
        Array dx = p.make_dx();
        BackwardInputArgs args = p.backward_input_args();
        args.dx = dx.view();
        launch<plan::BackwardInput>(p, args, candidate);
        dx.download();
        return dx;
    }

    /// Of every candidate for such a request, rows of `output(projection, candidate)`, which lie in this order.
    template <class Request, class Output>
    void expect_same_bits(const Projection& p, RowOrder order, const Output& output) {
        const Part one(p, some_tokens(fresh("one"), p.T, 1));
        const Part few(p, some_tokens(fresh("few"), p.T, 90));
        engine::CudaCall call(engine(), {});
        std::size_t checked = 0;
        for (const plan::Request& request : plan::step_requests(p.problem, tuning::batch_tokens)) {
            if (!std::holds_alternative<Request>(request)) continue;
            for (const auto& candidate : plan::search_space(p.problem, request, plan::Role::product, call.facts())) {
                if (!candidate.legal()) continue;
                SCOPED_TRACE(candidate.name);
                const Array whole = output(p, candidate);
                one.expect_same_rows(whole, output(one.alone, candidate), order);
                few.expect_same_rows(whole, output(few.alone, candidate), order);
                ++checked;
            }
        }
        EXPECT_GE(checked, 4U);
    }
};

TEST_P(BatchCandidates, GiveARowOfYTheSameBitsInEveryBatch) {
    const Projection p(engine(), test_case());
    expect_same_bits<plan::Forward>(p, p.problem.y_rows, y_of);
}

TEST_P(BatchCandidates, GiveARowOfDxTheSameBitsInEveryBatch) {
    const Projection p(engine(), test_case());
    expect_same_bits<plan::BackwardInput>(p, p.problem.x_rows, dx_of);
}

Cases candidate_cases() {
    return {
        {.name = "ekn", .problem = shape(3, 136, 264, 16, 2), .T = 330},
        {.name = "enk", .problem = with(shape(3, 136, 264, 16, 2), WeightLayout::enk), .T = 330},
        packed_case("mxfp4_arranged", with(shape(3, 160, 288, 16, 2), WeightLayout::enk), 330),
        packed_case("nf4_arranged", shape(3, 192, 320, 16, 2), 330, {}, usual_format(Encoding::nf4)),
    };
}
SMLORA_ON_CASES(Batch, BatchCandidates, candidate_cases());

}  // namespace
}  // namespace smlora::test
