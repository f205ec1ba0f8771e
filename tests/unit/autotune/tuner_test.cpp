// What an engine uses: recorded choices, of this number of tokens or the nearest, by the policy.
#include "autotune/tuner.hpp"

#include "autotune/measured_work.hpp"
#include "tuning/determinism.hpp"
#include "tuning_fixtures.hpp"

#include <smlora/error.hpp>
#include <smlora/prewarm.hpp>

namespace smlora::autotune {
namespace {

TEST_F(Tuning, OfDecodingServesTheNextNumbersOfTokensAlone) {
    unsetenv("SMLORA_INSTRUCTIONS");
    Engine one = engine(TuningPolicy::record_only);
    Problem arranged{.E = 8, .K = 512, .N = 512, .R = 0, .top_k = 2};
    arranged.weights = arranged_format(usual_format(Encoding::nf4));
    const auto decoding = [&](std::int64_t T) {
        return tuner_of(one).look_up(arranged, plan::step_requests(arranged, T).at(0), h200()).at(0);
    };
    const KnownWork measured = decoding(1024);
    ASSERT_EQ(measured.slot, "forward decoding");
    EXPECT_NE(measured.name.problem.find("nf4 block 64 arranged"), std::string::npos);
    const tuning::Candidate choice = tuning::shortlist(measured.space, 24).at(1);
    record(one, measured, choice);
    EXPECT_EQ(decoding(1024).choice(), choice.configuration);
    EXPECT_EQ(decoding(2048).choice(), choice.configuration);
    EXPECT_FALSE(decoding(4096).choice().has_value());
    EXPECT_FALSE(decoding(256).choice().has_value());
    arranged.adapter_dtype = DType::fp32;
    EXPECT_EQ(decoding(1024).choice(), choice.configuration);
    arranged.weights.block = 128;
    EXPECT_FALSE(decoding(1024).choice().has_value());
}

TEST_F(Tuning, TriesWhatMakesTheRankRowsOfAProductThatDecodes) {
    unsetenv("SMLORA_INSTRUCTIONS");
    Engine one = engine(TuningPolicy::record_only);
    Problem arranged{.E = 128, .K = 2048, .N = 1536, .R = 16, .top_k = 8};
    arranged.weight_layout = WeightLayout::enk;
    arranged.weights = arranged_format(usual_format(Encoding::mxfp4));
    const plan::Request request = plan::step_requests(arranged, 512).at(0);
    const plan::Request plain = plan::with_plain_weights(request);
    EXPECT_FALSE(plan::make_plan(plan::with_plain_weights(arranged), plain, h200()).has(plan::Role::xa))
        << "the product of plain weights makes its rank rows itself";
    const std::vector<KnownWork> works = tuner_of(one).look_up(arranged, request, h200());
    ASSERT_EQ(works.size(), 2U);
    EXPECT_EQ(works.back().slot, "xa");
    const tuning::Candidate first = tuning::shortlist(works.back().space, 1).at(0);
    plan::Choices choices;
    choices.set(plan::Role::xa, first.configuration);
    const jit::KernelSpec wanted = plan::make_plan(arranged, request, h200(), choices).at(plan::Role::xa).spec;
    const auto tried = tuner_of(one).kernels_to_try(arranged, request, h200(), {}, Wanted::a_choice);
    EXPECT_NE(std::find(tried.begin(), tried.end(), wanted), tried.end());
}

TEST_F(Tuning, WithoutARecordTheChoiceIsLeftToTheCostModels) {
    const Engine made = engine(TuningPolicy::record_only);
    const plan::Choices choices = tuner_of(made).known(problem, forward, h200());
    EXPECT_FALSE(choices.of(plan::Role::product).has_value());
    EXPECT_FALSE(choices.of(plan::Role::xa).has_value());
    EXPECT_TRUE(lines.empty());
}

TEST_F(Tuning, ARecordedChoiceIsUsedUnlessThePolicyIsOff) {
    Engine made = engine(TuningPolicy::record_only);
    const std::vector<KnownWork> works = tuner_of(made).look_up(problem, forward, h200());
    ASSERT_EQ(works.size(), 2u);
    const tuning::Candidate product = another(works[0].space);
    const tuning::Candidate xa = another(works[1].space);
    record(made, works[0], product);
    record(made, works[1], xa);

    const plan::Choices choices = tuner_of(made).known(problem, forward, h200());
    EXPECT_EQ(choices.of(plan::Role::product), product.configuration);
    EXPECT_EQ(choices.of(plan::Role::xa), xa.configuration);
    const plan::Plan plan = plan::make_plan(problem, forward, h200(), choices);
    const plan::Plan heuristic = plan::make_plan(problem, forward, h200());
    EXPECT_EQ(plan.at(plan::Role::product).spec.dynamic_shared, product.shared_bytes);
    EXPECT_EQ(plan.at(plan::Role::xa).spec.dynamic_shared, xa.shared_bytes);
    EXPECT_NE(plan.at(plan::Role::product).spec, heuristic.at(plan::Role::product).spec);
    // XA of backward_lora is the same piece of work.
    auto lora = std::get<plan::BackwardLora>(plan::step_requests(problem, 64).at(2));
    lora.needs_xa = true;
    EXPECT_EQ(tuner_of(made).known(problem, lora, h200()).of(plan::Role::xa), xa.configuration);

    const Engine off = engine(TuningPolicy::off);
    EXPECT_FALSE(tuner_of(off).known(problem, forward, h200()).of(plan::Role::product).has_value());
}

TEST_F(Tuning, PrewarmingPlansWithTheRecordedChoice) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    record(made, work, another(work.space));
    const auto choices = [&](const plan::Request& request) { return tuner_of(made).known(problem, request, h200()); };
    const auto has = [&](const std::vector<jit::KernelSpec>& specs, const jit::KernelSpec& spec) {
        return std::find(specs.begin(), specs.end(), spec) != specs.end();
    };
    const jit::KernelSpec wanted =
        plan::make_plan(problem, forward, h200(), choices(forward)).at(plan::Role::product).spec;
    EXPECT_TRUE(has(plan::step_kernels(problem, 64, h200(), choices), wanted));
    EXPECT_FALSE(has(plan::step_kernels(problem, 64, h200()), wanted));
}

TEST_F(Tuning, TheNearestNumberOfTokensServesAndSaysSo) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    record(made, work, another(work.space));
    const plan::Request larger = plan::step_requests(problem, 512).at(0);
    EXPECT_EQ(tuner_of(made).known(problem, larger, h200()).of(plan::Role::product), another(work.space).configuration);
    EXPECT_TRUE(
        logged("forward of E8 K256 N512 R16 k2 bf16 ekn token->scattered: no measurement for 512 tokens; using "
               "the one for 64 tokens"));
}

/// As PEFT asks for it: adapters in fp32 beside weights in bf16, indices of torch.
Problem with_other_types(Problem problem) {
    problem.adapter_dtype = DType::fp32;
    problem.index_dtype = DType::int64;
    return problem;
}

TEST_F(Tuning, TheRecordOfThePlainProblemServesOneWithOtherNumberTypesAndSaysSo) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    record(made, work, another(work.space));
    const Problem peft = with_other_types(problem);
    EXPECT_EQ(tuner_of(made).known(peft, forward, h200()).of(plan::Role::product), another(work.space).configuration);
    EXPECT_TRUE(
        logged("forward of E8 K256 N512 R16 k2 bf16 ekn token->scattered adapter:fp32 index:int64: no measurement for "
               "64 tokens; using the one for 64 tokens of E8 K256 N512 R16 k2 bf16 ekn token->scattered"));
    const KnownWork served = tuner_of(made).look_up(peft, forward, h200()).at(0);
    EXPECT_FALSE(served.tuning() != nullptr) << "what was measured there is no measurement of this problem";
    EXPECT_EQ(served.near()->name, work.name);
    EXPECT_NE(served.name, work.name) << "its own measurements have a record of their own";
    EXPECT_TRUE(served.is_served());

    // From another number of tokens the choice is good enough to begin with, no more.
    const plan::Request larger = plan::step_requests(peft, 512).at(0);
    const KnownWork near = tuner_of(made).look_up(peft, larger, h200()).at(0);
    EXPECT_EQ(near.choice(), another(work.space).configuration);
    EXPECT_FALSE(near.is_served());
    EXPECT_TRUE(tuner_of(made).known(peft, larger, h200()).of(plan::Role::product).has_value());
    EXPECT_TRUE(logged("no measurement for 512 tokens; using the one for 64 tokens of E8 K256"));
    // The weights' own type is no detail.
    Problem half = peft;
    half.dtype = DType::fp16;
    EXPECT_FALSE(tuner_of(made).known(half, forward, h200()).of(plan::Role::product).has_value());
}

TEST_F(Tuning, AProblemsOwnRecordGoesBeforeThatOfThePlainOne) {
    Engine made = engine(TuningPolicy::record_only);
    const Problem peft = with_other_types(problem);
    const KnownWork plain = tuner_of(made).look_up(problem, forward, h200()).at(0);
    const KnownWork own = tuner_of(made).look_up(peft, forward, h200()).at(0);
    const tuning::Candidate theirs = tuning::shortlist(plain.space, 24).at(2);
    record(made, plain, theirs);
    record(made, own, another(own.space));
    EXPECT_EQ(tuner_of(made).known(peft, forward, h200()).of(plan::Role::product), another(own.space).configuration);
    EXPECT_EQ(tuner_of(made).known(problem, forward, h200()).of(plan::Role::product), theirs.configuration);
    EXPECT_TRUE(lines.empty());
}

TEST_F(Tuning, FirstUseMeasuresNothingThatThePlainProblemsRecordServes) {
    Engine made = engine(TuningPolicy::first_use);
    for (const KnownWork& work : tuner_of(made).look_up(problem, forward, h200())) {
        record(made, work, another(work.space));
    }
    plan::CallRows rows;
    rows.T = 64;
    const Problem peft = with_other_types(problem);
    const plan::Choices choices = tuner_of(made).choose(peft, forward, h200(), rows, nullptr);
    const plan::Choices plain = tuner_of(made).known(problem, forward, h200());
    for (const plan::Role role : {plan::Role::product, plan::Role::xa}) {
        EXPECT_TRUE(choices.of(role).has_value());
        EXPECT_EQ(choices.of(role), plain.of(role));
    }
    EXPECT_FALSE(logged("tuning")) << "measuring would need a GPU";
    EXPECT_TRUE(logged("no measurement for 64 tokens; using the one for 64 tokens of "));
    // What was cut short there is used, and measured here.
    made.impl().cache.clear_records();
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    record(made, work, another(work.space), false);
    const KnownWork served = tuner_of(made).look_up(peft, forward, h200()).at(0);
    EXPECT_EQ(served.choice(), another(work.space).configuration);
    EXPECT_FALSE(served.is_served());
}

TEST_F(Tuning, APlainProblemsChoiceThatIsNoCandidateHereIsNotUsed) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    tuning::Candidate gone = another(work.space);
    gone.configuration.values[0].second += 1;
    record(made, work, gone, true, [&](tuning::Tuning& tuning) { tuning.trials[3].candidate = gone; });
    const KnownWork served = tuner_of(made).look_up(with_other_types(problem), forward, h200()).at(0);
    EXPECT_FALSE(served.choice().has_value());
    EXPECT_FALSE(served.near() != nullptr);
}

TEST_F(Tuning, WhatDoesNotHoldHereIsNotUsed) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    for (const auto& change : std::vector<std::function<void(tuning::Tuning&)>>{
             [](auto& tuning) { tuning.environment.templates = "0"; },
             [](auto& tuning) { tuning.environment.compiler = "11.0.1"; },
             [](auto& tuning) { tuning.environment.multiprocessors = 78; },
         }) {
        record(made, work, another(work.space), true, change);
        EXPECT_FALSE(tuner_of(made).known(problem, forward, h200()).of(plan::Role::product).has_value());
        made.impl().cache.clear_records();
    }
    // Another problem, another GPU.
    record(made, work, another(work.space));
    Problem wider = problem;
    wider.N = 1024;
    EXPECT_FALSE(tuner_of(made).known(wider, forward, h200()).of(plan::Role::product).has_value());
    gpu::DeviceFacts other = h200();
    other.name = "NVIDIA H100";
    EXPECT_FALSE(tuner_of(made).known(problem, forward, other).of(plan::Role::product).has_value());
}

TEST_F(Tuning, AChoiceThatIsNoCandidateHereIsNotUsed) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    tuning::Candidate gone = another(work.space);
    gone.configuration.values[0].second += 1;
    record(made, work, gone, true, [&](tuning::Tuning& tuning) { tuning.trials[3].candidate = gone; });
    EXPECT_FALSE(tuner_of(made).known(problem, forward, h200()).of(plan::Role::product).has_value());
    EXPECT_TRUE(logged("ignoring the recorded choice for forward of "));
}

TEST_F(Tuning, APartOfATuningIsUsedUntilThereIsMore) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    record(made, work, another(work.space), false);
    EXPECT_EQ(tuner_of(made).known(problem, forward, h200()).of(plan::Role::product),
              another(work.space).configuration);
}

TEST_F(Tuning, WhatWasCutShortBeforeAnySampleLeavesTheNearestChoice) {
    Engine made = engine(TuningPolicy::record_only);
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    record(made, work, another(work.space));
    const plan::Request larger = plan::step_requests(problem, 512).at(0);
    const KnownWork begun = tuner_of(made).look_up(problem, larger, h200()).at(0);
    record(made, begun, another(begun.space), false, [](tuning::Tuning& tuning) {
        tuning.choice.reset();
        for (tuning::Trial& trial : tuning.trials) {
            trial.verdict = tuning::Verdict::pending;
            trial.samples.clear();
        }
    });
    const KnownWork found = tuner_of(made).look_up(problem, larger, h200()).at(0);
    ASSERT_TRUE(found.tuning() != nullptr) << "to be resumed";
    EXPECT_TRUE(found.near() != nullptr);
    EXPECT_EQ(found.choice(), another(work.space).configuration);
    EXPECT_EQ(tuner_of(made).known(problem, larger, h200()).of(plan::Role::product), another(work.space).configuration);
}

TEST_F(Tuning, FirstUseTakesWhatWasTunedToTheEndAlthoughTheListOfCandidatesHasGrown) {
    Engine made = engine(TuningPolicy::first_use);
    for (const KnownWork& work : tuner_of(made).look_up(problem, forward, h200())) {
        record(made, work, another(work.space), true, [](tuning::Tuning& tuning) { tuning.trials.resize(4); });
    }
    plan::CallRows rows;
    rows.T = 64;
    const plan::Choices choices = tuner_of(made).choose(problem, forward, h200(), rows, nullptr);
    const plan::Choices known = tuner_of(made).known(problem, forward, h200());
    for (const plan::Role role : {plan::Role::product, plan::Role::xa}) {
        EXPECT_TRUE(choices.of(role).has_value());
        EXPECT_EQ(choices.of(role), known.of(role));
    }
    EXPECT_FALSE(logged("tuning")) << "measuring would need a GPU";
}

TEST_F(Tuning, KernelsToTryAreThoseOfTheShortListAndTheReferenceUntilTheyHaveVerdicts) {
    Engine made = engine(TuningPolicy::record_only);
    Tuner& tuner = tuner_of(made);
    const std::vector<jit::KernelSpec> all = tuner.kernels_to_try(problem, forward, h200(), {}, Wanted::every_verdict);
    const auto has = [](const std::vector<jit::KernelSpec>& specs, const jit::KernelSpec& spec) {
        return std::count(specs.begin(), specs.end(), spec);
    };
    const std::vector<KnownWork> works = tuner.look_up(problem, forward, h200());
    ASSERT_EQ(works.size(), 2u);
    for (const KnownWork& work : works) {
        for (const tuning::Candidate& candidate : tuning::shortlist(work.space, tuning::Protocol{}.candidates)) {
            plan::Choices choices;
            choices.set(work.role, candidate.configuration);
            EXPECT_EQ(has(all, plan::make_plan(problem, forward, h200(), choices).at(work.role).spec), 1)
                << candidate.name;
        }
        const plan::Plan reference = measured_work(problem, forward, work.role, h200())->reference_plan();
        EXPECT_EQ(has(all, reference.at(work.role).spec), 1);
    }
    EXPECT_EQ(all[0], plan::make_plan(problem, forward, h200()).at(plan::Role::xa).spec)
        << "the heuristic choice and what it needs";
    EXPECT_EQ(all[1], plan::make_plan(problem, forward, h200()).at(plan::Role::product).spec);

    record(made, works[0], another(works[0].space));
    const std::vector<jit::KernelSpec> left = tuner.kernels_to_try(problem, forward, h200(), {}, Wanted::every_verdict);
    EXPECT_FALSE(left.empty());
    EXPECT_LT(left.size(), all.size());
    EXPECT_EQ(has(left, plan::make_plan(problem, forward, h200()).at(plan::Role::product).spec), 0)
        << "that has its verdict";
    record(made, works[1], another(works[1].space));
    EXPECT_TRUE(tuner.kernels_to_try(problem, forward, h200(), {}, Wanted::every_verdict).empty());
    EXPECT_EQ(tuner.kernels_to_try(problem, forward, h200(), {}, Wanted::new_tuning).size(), all.size());
}

TEST_F(Tuning, WhatWasTunedToTheEndIsExtendedWhenEveryVerdictIsWanted) {
    Engine made = engine(TuningPolicy::record_only);
    Tuner& tuner = tuner_of(made);
    for (const KnownWork& work : tuner.look_up(problem, forward, h200())) {
        record(made, work, another(work.space), true, [](tuning::Tuning& tuning) { tuning.trials.resize(4); });
    }
    EXPECT_TRUE(tuner.kernels_to_try(problem, forward, h200(), {}, Wanted::own_tuning).empty());
    EXPECT_FALSE(tuner.kernels_to_try(problem, forward, h200(), {}, Wanted::every_verdict).empty());
}

TEST_F(Tuning, ABatchInvariantChoiceStaysWhateverIsRecordedMeanwhile) {
    for (const bool stays : {false, true}) {
        Engine made = engine(TuningPolicy::first_use, stays ? Determinism::batch : Determinism::run);
        const std::vector<KnownWork> works = tuner_of(made).look_up(problem, forward, h200());
        record(made, works[0], another(works[0].space));
        record(made, works[1], another(works[1].space));
        const plan::Choices before = tuner_of(made).known(problem, forward, h200());
        EXPECT_EQ(before.of(plan::Role::product), another(works[0].space).configuration);
        const auto least = tuning::shortlist(works[0].space, 24).at(5).configuration;
        record(made, works[0], tuning::shortlist(works[0].space, 24).at(5));
        const plan::Choices after = tuner_of(made).known(problem, forward, h200());
        EXPECT_EQ(after.of(plan::Role::product), stays ? before.of(plan::Role::product) : least);
        EXPECT_EQ(after.of(plan::Role::xa), before.of(plan::Role::xa));
    }
}

TEST_F(Tuning, WithoutARecordABatchInvariantChoiceIsTheCostModelsAndStays) {
    Engine made = engine(TuningPolicy::first_use, Determinism::batch);
    // Neither rows nor a GPU are there: measuring would fail, and say so.
    EXPECT_FALSE(tuner_of(made).choose(problem, forward, h200(), {{}, 64}, nullptr).of(plan::Role::product));
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    record(made, work, another(work.space));
    EXPECT_FALSE(tuner_of(made).choose(problem, forward, h200(), {{}, 64}, nullptr).of(plan::Role::product));
    EXPECT_TRUE(lines.empty());
}

TEST_F(Tuning, BatchInvariantPrewarmingCompilesForOneNumberOfTokens) {
    const auto kernels = [&](Determinism determinism, std::vector<std::int64_t> tokens) {
        const Engine made = engine(TuningPolicy::off, determinism);
        PrewarmOptions options;
        options.problems = {problem};
        options.tokens = std::move(tokens);
        options.archs = {"sm_90a"};
        options.check_only = true;
        return prewarm(made, options, {}).kernels;
    };
    const std::size_t pinned = kernels(Determinism::run, {tuning::batch_tokens});
    EXPECT_GT(kernels(Determinism::run, {1, 300, 65536}), pinned) << "else the numbers of tokens would tell nothing";
    EXPECT_EQ(kernels(Determinism::batch, {1, 300, 65536}), pinned);
    EXPECT_EQ(kernels(Determinism::batch, {}), pinned);
}

TEST_F(Tuning, WithoutTensorCoresThereIsNothingToChoose) {
    Engine made = engine(TuningPolicy::record_only);
    problem.dtype = problem.adapter_dtype = DType::fp32;
    for (const plan::Request& request : plan::step_requests(problem, 64)) {
        EXPECT_TRUE(tuner_of(made).look_up(problem, request, h200()).empty());
    }
}

TEST_F(Tuning, OptionsThatMakeNoSenseAreRefused) {
    EXPECT_THROW(engine(static_cast<TuningPolicy>(7)), Error);
    EngineOptions options;
    options.backend = Backend::cpu;
    options.tuning_seconds = -1;
    EXPECT_THROW(Engine{options}, Error);
}

}  // namespace
}  // namespace smlora::autotune
