// Every kernel that a training step needs compiles for every architecture, without spilling a register.
#include "args/grouped_product_wgmma.h"
#include "jit/kernel_compiler.hpp"
#include "jit/nvrtc.hpp"
#include "jit/templates.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"
#include "support/random.hpp"
#include "util/thread_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace smlora {
namespace {

Problem problem(std::int64_t E, std::int64_t K, std::int64_t N, std::int64_t R, std::int64_t top_k) {
    Problem made;
    made.E = E;
    made.K = K;
    made.N = N;
    made.R = R;
    made.top_k = top_k;
    return made;
}

void add_new(jit::KernelSpec spec, std::vector<jit::KernelSpec>& specs) {
    if (std::find(specs.begin(), specs.end(), spec) == specs.end()) specs.push_back(std::move(spec));
}

/// Compiles kernels and says what is wrong with each, if anything is.
void expect_compiled(const std::vector<jit::KernelSpec>& specs, const std::string& arch_name) {
    const gpu::Arch arch = gpu::arch_from_name(arch_name);
    const jit::Nvrtc& nvrtc = jit::Nvrtc::instance();
    ASSERT_FALSE(specs.empty());
    std::vector<std::string> complaints(specs.size());
    util::ThreadPool(0).parallel_for(static_cast<std::int64_t>(specs.size()), [&](std::int64_t i) {
        const auto& spec = specs[static_cast<std::size_t>(i)];
        std::string& complaint = complaints[static_cast<std::size_t>(i)];
        try {
            const jit::CompileRequest request =
                jit::compile_request(spec, arch, nvrtc.version(), jit::Templates::embedded());
            const jit::CompiledKernel kernel = jit::compile_kernel(request, nvrtc);
            const jit::ResourceUse& resources = kernel.resources;
            if (resources.spill_bytes() > 0) complaint = "spills " + std::to_string(resources.spill_bytes()) + " bytes";
            for (const std::string& note : kernel.serialization_notes) complaint += note;
            const auto shared = static_cast<std::int64_t>(spec.dynamic_shared) + resources.shared_bytes;
            if (shared > arch.shared_bytes_per_block) complaint = "needs " + std::to_string(shared) + " shared bytes";
        } catch (const std::exception& error) {
            complaint = error.what();
        }
    });
    for (std::size_t i = 0; i < specs.size(); ++i) {
        EXPECT_EQ(complaints[i], "") << arch_name << ": " << jit::readable(specs[i]);
    }
}

/// With SMLORA_TEST_WHOLE all of them. Else those that have every value of every constant between them, and a quarter
/// of the rest, drawn anew in each run: a product on wgmma takes ten seconds.
std::vector<jit::KernelSpec> drawn(std::vector<jit::KernelSpec> specs) {
    if (std::getenv("SMLORA_TEST_WHOLE") != nullptr) return specs;
    const test::Random random = test::fresh("drawn kernels");
    const std::size_t all = specs.size();
    for (std::size_t i = all; i > 1; --i) {
        std::swap(specs[i - 1], specs[static_cast<std::size_t>(random.below(i, static_cast<std::int64_t>(i)))]);
    }
    std::set<std::tuple<std::string, std::string, std::int64_t, std::string>> values;
    std::vector<jit::KernelSpec> chosen;
    for (std::size_t i = 0; i < all; ++i) {
        bool has_a_new_value = false;
        for (const jit::Constant& one : specs[i].constants) {
            has_a_new_value |= values.emplace(specs[i].family, one.name, one.integer, one.type).second;
        }
        if (has_a_new_value || random.bits(all + 1 + i) % 4 == 0) chosen.push_back(std::move(specs[i]));
    }
    std::cout << chosen.size() << " of " << all << " kernels; SMLORA_TEST_SEED=" << test::run_seed()
              << " draws these, SMLORA_TEST_WHOLE=1 all\n";
    return chosen;
}

struct Step {
    Problem problem;
    std::int64_t T = 0;
};

/// The kernels of the steps, each once: steps of alike layers share most of the small ones.
std::vector<jit::KernelSpec> kernels_of(const std::vector<Step>& steps, const std::string& arch_name) {
    std::vector<jit::KernelSpec> specs;
    for (const auto& [of, T] : steps) {
        for (auto& spec : plan::step_kernels(of, T, gpu::facts_of(gpu::arch_from_name(arch_name)))) {
            add_new(std::move(spec), specs);
        }
    }
    return specs;
}

void expect_compiled(const std::vector<Step>& steps, const std::string& arch_name) {
    expect_compiled(kernels_of(steps, arch_name), arch_name);
}

class PackedKernelsCompile : public testing::TestWithParam<WeightFormat> {
 protected:
    /// The products of this family that decode weights of gpt-oss: forward and dX with every blocking.
    static std::vector<jit::KernelSpec> products(const std::string& family, const std::string& arch_name) {
        Problem of_gpt_oss = problem(32, 2880, 5760, 16, 4);
        of_gpt_oss.weight_layout = WeightLayout::enk;
        of_gpt_oss.y_rows = RowOrder::grouped;
        of_gpt_oss.bias = true;
        of_gpt_oss.weights = GetParam();
        const gpu::DeviceFacts facts = gpu::facts_of(gpu::arch_from_name(arch_name));
        std::vector<jit::KernelSpec> specs;
        for (const plan::Request& request : plan::step_requests(of_gpt_oss, 4096)) {
            if (!plan::packed(request)) continue;
            for (const auto& candidate : plan::search_space(of_gpt_oss, request, plan::Role::product, facts)) {
                if (candidate.configuration.family != family || !candidate.legal()) continue;
                plan::Choices choices;
                choices.set(plan::Role::decoding, candidate.configuration);
                plan::Plan plan = plan::make_plan(of_gpt_oss, request, facts, choices);
                specs.push_back(std::move(plan.steps[static_cast<std::size_t>(plan::Role::product)]->spec));
            }
        }
        return specs;
    }
};

TEST_P(PackedKernelsCompile, EveryBlockingOfBothReductions) {
    const auto specs = products("grouped_product_packed", "sm_90a");
    EXPECT_EQ(specs.size(), 12U) << "blockings of forward and dX";
    expect_compiled(specs, "sm_90a");
}

TEST_P(PackedKernelsCompile, EveryPortableBlockingOfBothReductions) {
    std::vector<std::string> archs{"sm_80", "sm_90a"};
    // One of them is enough for a run that draws kernels.
    if (std::getenv("SMLORA_TEST_WHOLE") == nullptr) archs.erase(archs.begin() + test::fresh("arch").bits(0) % 2);
    for (const std::string& arch_name : archs) {
        const auto specs = products("grouped_product_mma_packed", arch_name);
        EXPECT_GE(specs.size(), 6U) << "blockings of forward and dX";
        expect_compiled(drawn(specs), arch_name);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Formats, PackedKernelsCompile,
    testing::Values(arranged_format(usual_format(Encoding::mxfp4)), arranged_format(usual_format(Encoding::mxfp8)),
                    arranged_format(usual_format(Encoding::nvfp4)), arranged_format(usual_format(Encoding::nf4)),
                    arranged_format(usual_format(Encoding::fp8)), arranged_format(usual_format(Encoding::int4)),
                    WeightFormat{.encoding = Encoding::int4, .scales = DType::bf16, .block = 64, .arranged = true}),
    [](const auto& format) {
        return std::string(name(format.param.encoding)) + "_" + std::to_string(format.param.block);
    });

class KernelsCompile : public testing::TestWithParam<const char*> {};

TEST_P(KernelsCompile, BothProjectionsOfAModel) {
    Problem gate_up = problem(128, 2048, 1536, 16, 8);
    gate_up.y_rows = RowOrder::grouped;
    Problem down = problem(128, 768, 2048, 16, 8);
    down.weight_layout = WeightLayout::enk;
    down.adapter_dtype = DType::fp32;
    down.x_rows = RowOrder::grouped;
    down.y_rows = RowOrder::token;
    down.gates = true;
    expect_compiled({{gate_up, 2048}, {down, 16384}}, GetParam());
}

TEST_P(KernelsCompile, FewLongExpertsAndALargeRank) {
    Problem large = problem(8, 4096, 28672, 128, 2);
    large.dtype = large.adapter_dtype = DType::fp16;
    large.index_dtype = DType::int64;
    expect_compiled({{large, 8192}}, GetParam());
}

TEST_P(KernelsCompile, WithoutTensorCores) {
    Problem odd = problem(5, 37, 53, 3, 2);
    odd.bias = true;
    Problem fp32 = odd;
    fp32.dtype = fp32.adapter_dtype = DType::fp32;
    fp32.K = 96;
    fp32.N = 80;
    expect_compiled({{odd, 64}, {fp32, 64}}, GetParam());
}

TEST_P(KernelsCompile, QuantisedWeightsInSlices) {
    Problem down = problem(128, 768, 2048, 16, 8);
    down.weight_layout = WeightLayout::enk;
    down.x_rows = RowOrder::grouped;
    down.y_rows = RowOrder::token;
    down.gates = true;
    down.weights = usual_format(Encoding::nf4);
    Problem odd = problem(5, 37, 64, 3, 2);
    odd.weights = usual_format(Encoding::mxfp4);
    expect_compiled({{down, 16384}, {odd, 64}}, GetParam());
}

INSTANTIATE_TEST_SUITE_P(ForArch, KernelsCompile,
                         testing::Values("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"),
                         [](const auto& arch) { return std::string(arch.param); });

TEST(KernelsCompile, OnWgmma) {
    ASSERT_EQ(setenv("SMLORA_INSTRUCTIONS", "wgmma", 1), 0);
    Problem large_rank = problem(128, 2048, 1536, 256, 8);
    large_rank.weight_layout = WeightLayout::enk;
    Problem narrow = problem(1024, 96, 80, 16, 4);
    narrow.dtype = narrow.adapter_dtype = DType::fp16;
    narrow.x_rows = narrow.y_rows = RowOrder::grouped;
    narrow.bias = narrow.gates = true;
    expect_compiled({{problem(128, 2048, 1536, 16, 8), 4096},  // 256 rows an expert
                     {problem(256, 2048, 1024, 16, 8), 2048},  // 64, in one tile
                     {problem(128, 2048, 1536, 0, 8), 16384},  // the base product
                     {large_rank, 16384},
                     {narrow, 64}},
                    "sm_90a");
    unsetenv("SMLORA_INSTRUCTIONS");
}

TEST(KernelsCompile, TilesFromOneTokenToManyAndRanks) {
    std::vector<Step> steps;
    for (const std::int64_t T : {1, 64, 512, 65536}) steps.push_back({problem(64, 2048, 2048, 16, 8), T});
    for (const std::int64_t R : {1, 17, 32, 64, 256}) steps.push_back({problem(64, 2880, 1024, R, 8), 2048});
    expect_compiled(drawn(kernels_of(steps, "sm_90a")), "sm_90a");
}

std::int64_t constant(const jit::KernelSpec& spec, const std::string& name) {
    for (const jit::Constant& one : spec.constants) {
        if (one.name == name) return one.integer;
    }
    return 0;
}

/// Kernels on wgmma do not spill, but for products that make rank rows of a reduction that is no whole number of steps.
bool may_spill(const jit::KernelSpec& spec) {
    if (!spec.family.ends_with("_wgmma")) return true;
    return constant(spec, "MAKES_RANK_ROWS") != 0 && constant(spec, "RED") % grouped_product_wgmma::step_depth != 0;
}

/// All that the tuner may try in a step.
std::vector<jit::KernelSpec> candidates(const Problem& problem, const gpu::DeviceFacts& facts) {
    std::vector<jit::KernelSpec> specs;
    for (const plan::Request& request : plan::step_requests(problem, 2048)) {
        for (const plan::Role role : plan::chosen_roles(problem, request)) {
            for (const tuning::Candidate& candidate : plan::search_space(problem, request, role, facts)) {
                if (!candidate.legal()) continue;
                plan::Choices choices;
                choices.set(role, candidate.configuration);
                add_new(plan::make_plan(problem, request, facts, choices).at(role).spec, specs);
            }
        }
    }
    return specs;
}

/// A candidate that the tuner may try compiles and fits; one that spills is refused then, but most must not.
void expect_candidates_compile(const Problem& problem, const std::string& arch_name) {
    const gpu::Arch arch = gpu::arch_from_name(arch_name);
    const jit::Nvrtc& nvrtc = jit::Nvrtc::instance();
    std::vector<jit::KernelSpec> specs = candidates(problem, gpu::facts_of(arch));
    ASSERT_GT(specs.size(), 20u);
    specs = drawn(std::move(specs));
    std::vector<std::string> complaints(specs.size());
    std::atomic<std::size_t> spilling{0};
    util::ThreadPool(0).parallel_for(static_cast<std::int64_t>(specs.size()), [&](std::int64_t i) {
        const auto at = static_cast<std::size_t>(i);
        try {
            const jit::CompileRequest request =
                jit::compile_request(specs[at], arch, nvrtc.version(), jit::Templates::embedded());
            const jit::ResourceUse resources = jit::compile_kernel(request, nvrtc).resources;
            if (resources.spill_bytes() > 0) {
                ++spilling;
                if (!may_spill(specs[at])) complaints[at] = "spills";
            }
            const auto shared = static_cast<std::int64_t>(specs[at].dynamic_shared) + resources.shared_bytes;
            if (shared > arch.shared_bytes_per_block) {
                complaints[at] = "needs " + std::to_string(shared) + " shared bytes";
            }
        } catch (const std::exception& error) {
            complaints[at] = error.what();
        }
    });
    for (std::size_t i = 0; i < specs.size(); ++i) EXPECT_EQ(complaints[i], "") << jit::readable(specs[i]);
    EXPECT_LT(spilling, specs.size() / 5) << "of " << specs.size();
}

TEST(KernelsCompile, Candidates) {
    ASSERT_EQ(setenv("SMLORA_INSTRUCTIONS", "mma", 1), 0);
    expect_candidates_compile(problem(64, 1024, 768, 16, 8), "sm_90a");
    ASSERT_EQ(setenv("SMLORA_INSTRUCTIONS", "wgmma", 1), 0);
    // One column tile forward, two in dX; a reduction that is not a whole number of steps, and one that is.
    expect_candidates_compile(problem(64, 328, 256, 48, 8), "sm_90a");
    unsetenv("SMLORA_INSTRUCTIONS");
}

}  // namespace
}  // namespace smlora
