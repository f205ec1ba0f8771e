// Whether products decode the codes of arranged weights, or read what is unpacked: by rows of an expert.
#include "plan/packed.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"

#include <smlora/weight.hpp>

#include <gtest/gtest.h>
#include <set>
#include <string>
#include <string_view>

namespace smlora::test {
namespace {

/// Of a projection of Qwen3-30B-A3B, forward and dX.
std::vector<bool> decoded(const WeightFormat& format, std::int64_t T, const char* arch = "sm_90a") {
    Problem problem{.E = 128, .K = 2048, .N = 1536, .R = 16, .top_k = 8};
    problem.weight_layout = WeightLayout::enk;
    problem.weights = format;
    std::vector<bool> found;
    for (const plan::Request& request : plan::step_requests(problem, T)) {
        if (!plan::packed(request)) continue;
        const gpu::DeviceFacts facts = gpu::facts_of(gpu::arch_from_name(arch));
        found.push_back(plan::packed(plan::with_the_faster_product(problem, request, facts, {})));
    }
    return found;
}

TEST(PackedProducts, DecodeWhereRowsAreFew) {
    for (const Encoding encoding : {Encoding::mxfp4, Encoding::mxfp8, Encoding::nvfp4, Encoding::int4, Encoding::nf4,
                                    Encoding::fp4, Encoding::fp8}) {
        const WeightFormat format = arranged_format(usual_format(encoding));
        for (const std::int64_t T : {512, 2048, 4096}) {
            EXPECT_EQ(decoded(format, T), (std::vector<bool>{true, true})) << name(encoding) << " " << T;
        }
        EXPECT_EQ(decoded(format, 512, "sm_80"), (std::vector<bool>{true, true})) << name(encoding);
    }
}

TEST(PackedProducts, ReadWhatIsUnpackedWhereDecodingForEachTileCostsMore) {
    EXPECT_EQ(decoded(arranged_format(usual_format(Encoding::nf4)), 32768), (std::vector<bool>{false, false}));
    EXPECT_EQ(decoded(arranged_format(usual_format(Encoding::mxfp4)), 16384), (std::vector<bool>{true, true}));
}

TEST(PackedProducts, AreChosenByARecordOfDecoding) {
    Problem problem{.E = 128, .K = 2048, .N = 1536, .R = 16, .top_k = 8};
    problem.weights = arranged_format(usual_format(Encoding::nf4));
    const gpu::DeviceFacts facts = gpu::facts_of(gpu::arch_from_name("sm_90a"));
    for (const plan::Request& request : plan::step_requests(problem, 512)) {
        if (!plan::packed(request)) continue;
        const tuning::SearchSpace space = plan::decoding_space(problem, request, facts);
        for (const tuning::Candidate& candidate : space) {
            if (!candidate.legal()) continue;
            plan::Choices choices;
            choices.set(plan::Role::decoding, candidate.configuration);
            const plan::Plan plan = plan::make_plan(problem, request, facts, choices);
            const bool unpacks = candidate.name == "unpack";
            EXPECT_EQ(plan.has(plan::Role::unpack), unpacks) << candidate.name;
            if (!unpacks) {
                EXPECT_EQ(plan.at(plan::Role::product).spec.family, candidate.configuration.family);
            }
            const bool permutes = candidate.configuration.family == "grouped_product_packed";
            EXPECT_EQ(plan.has(plan::Role::permute_rows),
                      permutes && std::holds_alternative<plan::BackwardInput>(request));
            for (const plan::Role role : plan::chosen_roles(problem, request)) {
                if (role == plan::Role::decoding) continue;
                const bool has = plan.has(role) && (role != plan::Role::product || unpacks);
                EXPECT_EQ(plan::is_needed(problem, request, role, facts, choices), has) << candidate.name;
            }
        }
        EXPECT_EQ(space.back().name, "unpack");
        const std::string slot = plan::slot_name(problem, request, plan::Role::decoding);
        const auto work = plan::work_called(slot, problem, plan::bucket(request));
        ASSERT_TRUE(work.has_value()) << slot;
        EXPECT_EQ(work->role, plan::Role::decoding);
        EXPECT_EQ(work->request, request);
    }
}

TEST(PackedProducts, AreNoneOfWeightsThatAreNotArranged) {
    EXPECT_EQ(decoded(usual_format(Encoding::nf4), 512), std::vector<bool>());
    EXPECT_EQ(decoded(arranged_format({.encoding = Encoding::nf4, .block = 32}), 512), std::vector<bool>());
}

/// The types of scales whose arranging a step's kernels have.
std::set<std::string> arranged_from(Encoding encoding) {
    Problem problem{.E = 128, .K = 2048, .N = 1536, .R = 16, .top_k = 8};
    problem.weight_layout = WeightLayout::enk;
    problem.weights = arranged_format(usual_format(encoding));
    std::set<std::string> found;
    for (const jit::KernelSpec& spec : plan::step_kernels(problem, 512, gpu::facts_of(gpu::arch_from_name("sm_90a")))) {
        if (spec.family != "arrange_scales") continue;
        const std::string text = jit::readable(spec);
        const std::size_t at = text.find("Scale=") + std::string_view("Scale=").size();
        found.insert(text.substr(at, text.find(' ', at) - at));
    }
    return found;
}

TEST(PackedProducts, ComeWithTheArrangingOfEachTypeOfScalesThatCheckpointsHave) {
    EXPECT_EQ(arranged_from(Encoding::fp8).size(), 3U);
    EXPECT_EQ(arranged_from(Encoding::nf4).size(), 2U);
    EXPECT_EQ(arranged_from(Encoding::nvfp4).size(), 1U);
}

}  // namespace
}  // namespace smlora::test
