// Quantised weights against the plain weights that they are decoded to, unpacked at once and in slices of experts: bit
// by bit.
#include "operations/cases.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include <fmt/format.h>

namespace smlora::test {
namespace {

/// Engines that unpack so many bytes at once; kernels are shared.
const Engine& engine_with_limit(Backend backend, std::uint64_t bytes) {
    static const TemporaryFolder folder;
    static std::map<std::pair<Backend, std::uint64_t>, Engine> engines;
    const auto known = engines.find({backend, bytes});
    if (known != engines.end()) return known->second;
    EngineOptions options = options_of(backend, folder);
    options.unpack_limit_bytes = bytes;
    return engines.emplace(std::pair(backend, bytes), Engine(options)).first->second;
}

struct Results {
    ForwardRun forward;
    BackwardInputRun backward;
};

Results run_both(const Projection& p, const Weight& W) {
    ForwardArgs forward_args = p.forward_args();
    forward_args.W = W;
    BackwardInputArgs backward_args = p.backward_input_args();
    backward_args.W = W;
    return {run_forward(p, forward_args), run_backward_input(p, backward_args)};
}

void expect_same(const Projection& p, const Results& got, const Results& wanted) {
    EXPECT_TRUE(got.forward.y.same_bits(wanted.forward.y));
    EXPECT_TRUE(got.forward.y.untouched_outside());
    EXPECT_TRUE(got.backward.dx.same_bits(wanted.backward.dx));
    EXPECT_TRUE(got.backward.dx.untouched_outside());
    if (p.problem.R > 0) {
        EXPECT_TRUE(got.forward.xa.same_bits(wanted.forward.xa));
        EXPECT_TRUE(got.backward.yb.same_bits(wanted.backward.yb));
    }
    if (p.problem.gates) {
        EXPECT_TRUE(got.backward.dgates.same_bits(wanted.backward.dgates));
    }
}

class Slices : public OnCases {};

TEST_P(Slices, HaveTheBitsOfThePlainWeights) {
    Projection p(engine(), test_case());
    const Problem quantised = p.problem;
    p.problem.weights = {};
    const Results plain = run_both(p, p.W.view());
    p.problem = quantised;
    expect_same(p, run_both(p, p.weight()), plain);
    EXPECT_TRUE(p.encoded->is_unchanged());

    const auto expert = static_cast<std::uint64_t>(p.problem.K * p.problem.N) * size_of(p.problem.dtype);
    // One expert at a time, also where the limit is below that; and slices of which the last lacks experts.
    for (const std::uint64_t limit : {std::uint64_t{0}, expert, 3 * expert + 1}) {
        SCOPED_TRACE(fmt::format("unpacking at most {} bytes", limit));
        const Projection sliced(engine_with_limit(backend(), limit), test_case());
        expect_same(sliced, run_both(sliced, sliced.weight()), plain);
        EXPECT_TRUE(sliced.encoded->is_unchanged());
    }
}

SMLORA_ON_CASES(Quantised, Slices, quantised_cases());

}  // namespace
}  // namespace smlora::test
