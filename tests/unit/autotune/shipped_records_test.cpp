// The records that the project ships parse, lie where they belong, match the templates and name legal candidates, and
// none is missing of the models that the tool knows.
#include "autotune/record_check.hpp"
#include "models/model_table.hpp"
#include "tuning/bucket.hpp"
#include "tuning/bundle.hpp"
#include "tuning/choice.hpp"
#include "tuning_fixtures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>

namespace smlora::autotune {
namespace {

/// What is wrong with the records of a layer, by file; `records` counts them.
std::vector<std::string> complaints(const std::filesystem::path& layer, Engine& engine, int& records) {
    std::vector<std::string> all;
    util::Logger log([&](LogLevel, std::string_view line) { all.emplace_back(line); });
    cache::CacheOptions options;
    options.root = layer;
    options.layers.emplace();
    const cache::Cache cache(options, log);
    records = 0;
    for (const cache::RecordText& stored : cache.list_records()) {
        ++records;
        const RecordCheck check = check_file(stored, engine.impl().kernels);
        for (const auto* list : {&check.unsound, &check.stale}) {
            for (const std::string& what : *list) all.push_back(stored.file.filename().string() + ": " + what);
        }
    }
    return all;
}

/// A copy, as a checkout may be writable by its group; how many records it should have.
std::size_t copy_shipped_layer(const std::filesystem::path& copy) {
    std::filesystem::copy(SMLORA_SHIPPED_LAYER, copy, std::filesystem::copy_options::recursive);
    std::size_t files = 0;
    for (const auto& item : std::filesystem::recursive_directory_iterator(copy)) {
        const bool folder = item.is_directory();
        std::filesystem::permissions(item.path(),
                                     folder ? std::filesystem::perms::owner_all : std::filesystem::perms::owner_read);
        if (!folder && item.path().extension() == ".jsonl") ++files;
    }
    std::filesystem::permissions(copy, std::filesystem::perms::owner_all);
    return files;
}

using ShippedRecords = Tuning;

TEST_F(ShippedRecords, AreFitToBeUsed) {
    unsetenv("SMLORA_INSTRUCTIONS");
    Engine made = engine(TuningPolicy::record_only);
    const std::filesystem::path copy = scratch.path() / "shipped";
    const std::size_t files = copy_shipped_layer(copy);
    int records = 0;
    EXPECT_EQ(complaints(copy, made, records), std::vector<std::string>{});
    EXPECT_EQ(static_cast<std::size_t>(records), files) << "every one is a bundle where bundles lie";
    EXPECT_GE(files, 2u);
}

TEST_F(ShippedRecords, ChooseWhatTheirTimingsTell) {
    std::size_t tunings = 0;
    for (const auto& item : std::filesystem::recursive_directory_iterator(SMLORA_SHIPPED_LAYER)) {
        if (item.path().extension() != ".jsonl") continue;
        const std::string text = testing::contents_of(item.path());
        std::string why;
        const std::optional<tuning::Bundle> bundle = tuning::Bundle::parse(text, why);
        ASSERT_TRUE(bundle.has_value()) << item.path() << ": " << why;
        EXPECT_EQ(tuning::bundle_text(bundle->gpu(), bundle->records()), text) << "as export --bundle writes it";
        for (const tuning::Record& record : bundle->records()) {
            for (const tuning::Tuning& tuning : record.tunings) {
                const tuning::Judgement judgement = tuning::judge(tuning.trials);
                ASSERT_TRUE(judgement.winner.has_value());
                EXPECT_EQ(tuning.trials[*judgement.winner].candidate.configuration, tuning.choice)
                    << tuning.slot << " of " << record.name.problem;
                ++tunings;
            }
        }
    }
    EXPECT_GE(tunings, 477u);
}

/// What the cost model chose where a record tells how fast candidates are.
struct Compared {
    std::string what;
    double behind;  ///< the fastest that was measured, as a share of its time
};

/// Of the tunings in which its choice was timed.
std::vector<Compared> compared(const tuning::Bundle& bundle) {
    std::vector<Compared> all;
    gpu::DeviceFacts facts = h200();
    facts.name = bundle.gpu();
    for (const tuning::Record& record : bundle.records()) {
        const std::optional<Problem> problem = problem_from_text(record.name.problem);
        for (const tuning::Tuning& tuning : record.tunings) {
            const auto work = plan::work_called(tuning.slot, problem.value(), record.name.bucket);
            const tuning::SearchSpace space = plan::search_space(*problem, work.value().request, work->role, facts);
            const tuning::Candidate& choice = space[tuning::heuristic_choice(space).value()];
            std::optional<double> chosen;
            double best = std::numeric_limits<double>::infinity();
            for (const tuning::Trial& trial : tuning.trials) {
                if (!trial.timing) continue;
                if (trial.candidate.configuration == choice.configuration) chosen = trial.timing->seconds();
                if (trial.verdict == tuning::Verdict::measured) best = std::min(best, trial.timing->seconds());
            }
            if (!chosen) continue;
            all.push_back({fmt::format("{} of {}, {} tokens: {}", tuning.slot, record.name.problem,
                                       tuning.workload.tokens, choice.name),
                           *chosen / best - 1});
        }
    }
    return all;
}

TEST_F(ShippedRecords, AreHardlyFasterThanTheChoicesOfTheCostModel) {
    unsetenv("SMLORA_INSTRUCTIONS");
    const std::filesystem::path file = cache::bundle_file(SMLORA_SHIPPED_LAYER, "NVIDIA_H200");
    std::string why;
    const std::optional<tuning::Bundle> bundle = tuning::Bundle::parse(testing::contents_of(file), why);
    ASSERT_TRUE(bundle.has_value()) << why;
    const std::vector<Compared> all = compared(*bundle);
    EXPECT_EQ(all.size(), bundle->tunings()) << "where its choice was not timed nobody knows";
    const auto share_behind = [&](double least) {
        const auto far = std::count_if(all.begin(), all.end(), [&](const Compared& one) { return one.behind > least; });
        return static_cast<double>(far) / static_cast<double>(all.size());
    };
    // On the day of the fit 4 of 1024 were more than 5 % behind, and 3 of 100 more than 3 %:
    // docs/lab/2026-11-30-ranks.md. Another day's measurements have another noise.
    EXPECT_LE(share_behind(0.03), 0.06);
    EXPECT_LE(share_behind(0.05), 0.01);
    // The first two were measured twice, and are not explained: docs/lab/2026-11-30-ranks.md. What mends one of them
    // takes it off the list.
    const std::map<std::string, double> known{
        {"gradients of E128 K2880 N5760 R64 k4 bf16 ekn token->grouped bias, 2048 tokens: wgmma_512x64_s3", 0.16},
        {"gradients of E256 K2048 N7168 R8 k8 bf16 enk grouped->token gates:fp32, 2048 tokens: wgmma_1024x32_s3", 0.08},
        // Rank rows beside products that decode, measured once: docs/lab/2026-12-01-packed-mma.md.
        {"xa of E256 K7168 N4096 R16 k8 bf16 enk token->grouped, 16384 tokens: mma_128x16x64_w4x1_s4_b2", 0.10},
        {"yb of E32 K2880 N2880 R16 k4 bf16 enk grouped->token bias gates:fp32, 16384 tokens: mma_64x16x64_w4x1_s3_b2",
         0.09},
        {"xa of E32 K2880 N5760 R16 k4 bf16 enk token->grouped bias, 16384 tokens: mma_64x16x64_w4x1_s3_b2", 0.08},
        {"yb of E64 K2048 N2048 R16 k8 bf16 enk token->grouped, 2048 tokens: mma_32x16x64_w2x1_s6_b4", 0.08}};
    for (const Compared& one : all) {
        const auto exception = known.find(one.what);
        EXPECT_LE(one.behind, exception == known.end() ? 0.07 : exception->second) << one.what;
        if (exception != known.end()) {
            EXPECT_GT(one.behind, 0.07) << one.what << ": no exception any more";
        }
    }
}

TEST_F(ShippedRecords, ThatAreBadAreFoundOut) {
    Engine made = engine(TuningPolicy::record_only);
    const std::filesystem::path root = scratch.path() / "cache";
    const KnownWork work = tuner_of(made).look_up(problem, forward, h200()).at(0);
    const std::filesystem::path file = cache::record_file(root, "NVIDIA_H200", work.name.key());
    int records = 0;
    const auto expect_complaint = [&](const std::string& part) {
        const std::vector<std::string> found = complaints(root, made, records);
        ASSERT_EQ(found.size(), 1u) << part;
        EXPECT_NE(found[0].find(part), std::string::npos) << found[0];
    };
    const auto plant = [&](const std::function<void(tuning::Tuning&)>& change) {
        made.impl().cache.clear_records();
        record(made, work, another(work.space), true, change);
    };

    plant({});
    EXPECT_EQ(complaints(root, made, records), std::vector<std::string>{});
    EXPECT_EQ(records, 1);
    const std::string sound = testing::contents_of(file);

    plant([](auto& tuning) { tuning.environment.templates = "00"; });
    expect_complaint("was measured with templates 00");
    plant([](auto& tuning) {
        tuning.trials[3].candidate.configuration.values[0].second = 4096;
        tuning.choice = tuning.trials[3].candidate.configuration;
    });
    expect_complaint("chose what is no legal candidate: {\"family\":\"grouped_product_mma\",\"TILE_M\":4096");
    plant([](auto& tuning) { tuning.choice.reset(); });
    expect_complaint("has no choice");
    plant([](auto& tuning) { tuning.slot = "sideways"; });
    expect_complaint("is no piece of work");
    plant([](auto& tuning) { tuning.environment.arch = "sm_1"; });
    expect_complaint("sm_1");
    plant([](auto& tuning) { tuning.environment.gpu = "another"; });
    expect_complaint("another GPU");
    testing::write_file(file, sound.substr(0, sound.size() - 20));
    expect_complaint("no JSON object");
    std::filesystem::remove(file);
    testing::write_file(cache::record_file(root, "NVIDIA_H200", std::string(32, 'a')), sound);
    expect_complaint("the record of another problem");
}

/// Of the shipped records in the cache of an engine, on every GPU that they are for.
class FirstRunOnAShippedGpu : public Tuning {
 protected:
    FirstRunOnAShippedGpu() {
        unsetenv("SMLORA_INSTRUCTIONS");
        copy_shipped_layer(scratch.path() / "cache");
    }

    /// Makes the records those of a machine with the compiler and driver of here, and finds out what GPUs they are for.
    void bring_here(Engine& engine) {
        for (const cache::RecordText& stored : engine.impl().cache.list_records()) {
            std::string why;
            std::optional<std::vector<tuning::Record>> records = tuning::records_in(stored, why);
            ASSERT_TRUE(records.has_value()) << stored.file << ": " << why;
            for (tuning::Record& record : *records) {
                for (tuning::Tuning& tuning : record.tunings) {
                    tuning::Environment machine = tuning.environment;
                    machine.templates.clear();  // those are of the slot
                    const tuning::Environment& first = machines.try_emplace(machine.gpu, machine).first->second;
                    EXPECT_EQ(tuning::mismatch(machine, first), "") << stored.file << ": not all hold on one machine";
                    tuning.environment.compiler.clear();
                    tuning.environment.driver.clear();
                }
            }
            const std::string& gpu = records->front().name.gpu;
            shipped[gpu] = std::move(*records);
            write(gpu, shipped[gpu]);
        }
    }

    void write(const std::string& gpu, const std::vector<tuning::Record>& records) {
        const std::filesystem::path file = cache::bundle_file(scratch.path() / "cache", cache::record_folder(gpu));
        std::filesystem::remove(file);
        testing::write_file(file, tuning::bundle_text(gpu, records));
    }

    /// The pieces of work of a model's training steps that first use would measure, as it has no choice of their own.
    [[nodiscard]] std::vector<std::string> untuned(Engine& engine, const models::ModelShape& model) {
        constexpr std::uint8_t least_bucket = 10;
        constexpr std::uint8_t most_bucket = 16;
        std::vector<std::string> found;
        for (const auto& [gpu, machine] : machines) {
            gpu::DeviceFacts facts = gpu::facts_of(gpu::arch_from_name(machine.arch));
            facts.name = gpu;
            facts.multiprocessors = machine.multiprocessors;
            for (const models::Projection& projection : models::projections(model, rank)) {
                for (std::uint8_t bucket = least_bucket; bucket <= most_bucket; ++bucket) {
                    for (const plan::Request& request :
                         plan::step_requests(projection.problem, tuning::tokens_of(bucket))) {
                        for (const KnownWork& work : tuner_of(engine).look_up(projection.problem, request, facts)) {
                            ++works;
                            if (work.is_complete() && work.choice()) continue;
                            found.push_back(fmt::format("{} of {} {}, {} tokens, on {}", work.slot, model.name,
                                                        projection.name, tuning::tokens_of(bucket), gpu));
                        }
                    }
                }
            }
        }
        return found;
    }

    /// What is left of the untuned works of a model: none of its gradients on the H100 is shipped, as cache/README.md
    /// says.
    [[nodiscard]] std::vector<std::string> but_gradients(std::vector<std::string> found) const {
        const std::size_t gradients = std::erase_if(found, [](const std::string& work) {
            return work.starts_with("gradients of ") && work.ends_with("on NVIDIA H100 80GB HBM3");
        });
        EXPECT_EQ(gradients, 2u * 7) << "once they are shipped, nothing is to be left out";
        return found;
    }

    static constexpr std::int64_t rank = 16;
    // What lies below the cache would serve in place of what is missing in it.
    const testing::ScopedVariable no_shipped_layer{"SMLORA_SHIPPED_CACHE", "0"};
    std::map<std::string, tuning::Environment> machines;  // by GPU
    std::map<std::string, std::vector<tuning::Record>> shipped;
    std::size_t works = 0;
};

TEST_F(FirstRunOnAShippedGpu, TunesNothingOfTheModelsThatTheToolKnows) {
    Engine made = engine(TuningPolicy::first_use);
    bring_here(made);
    ASSERT_FALSE(machines.empty());
    for (const models::ModelShape& model : models::known_models()) {
        EXPECT_EQ(but_gradients(untuned(made, model)), std::vector<std::string>{});
    }
    // Two projections, seven buckets, and at least forward, dx and gradients.
    EXPECT_GE(works, machines.size() * models::known_models().size() * 2 * 7 * 3);
}

TEST_F(FirstRunOnAShippedGpu, TunesWhatIsMissing) {
    Engine made = engine(TuningPolicy::first_use);
    bring_here(made);
    ASSERT_FALSE(machines.empty());
    const models::ModelShape& model = models::known_models().front();
    const models::Projection down = models::projections(model, rank).at(1);
    const std::string gpu = machines.begin()->first;
    const tuning::RecordName name{gpu, to_string(down.problem), 12};
    const std::string untuned_forward = fmt::format("forward of {} down, 4096 tokens, on {}", model.name, gpu);
    const auto without = [&](const std::function<bool(const tuning::Tuning&)>& left_out) {
        std::vector<tuning::Record> records = shipped.at(gpu);
        for (tuning::Record& record : records) {
            if (record.name == name) std::erase_if(record.tunings, left_out);
        }
        write(gpu, records);
    };
    const auto is_forward = [](const tuning::Tuning& tuning) { return tuning.slot == "forward"; };

    EXPECT_EQ(but_gradients(untuned(made, model)), std::vector<std::string>{});
    without(is_forward);
    EXPECT_EQ(but_gradients(untuned(made, model)), std::vector<std::string>{untuned_forward});
    // What was measured with other templates is none.
    std::vector<tuning::Record> records = shipped.at(gpu);
    for (tuning::Record& record : records) {
        for (tuning::Tuning& tuning : record.tunings) {
            if (record.name == name && is_forward(tuning)) tuning.environment.templates = "00";
        }
    }
    write(gpu, records);
    EXPECT_EQ(but_gradients(untuned(made, model)), std::vector<std::string>{untuned_forward});
    without([](const tuning::Tuning&) { return true; });
    const std::vector<std::string> without_record = but_gradients(untuned(made, model));
    EXPECT_GE(without_record.size(), 2u) << "forward and dx";
    for (const std::string& work : without_record) {
        EXPECT_NE(work.find(fmt::format("{} down, 4096 tokens, on {}", model.name, gpu)), std::string::npos) << work;
    }
}

TEST(ProblemText, IsReadBack) {
    Problem problem = small_problem();
    for (const bool rich : {false, true}) {
        if (rich) {
            problem.dtype = DType::fp16;
            problem.adapter_dtype = DType::fp32;
            problem.weight_layout = WeightLayout::enk;
            problem.x_rows = RowOrder::grouped;
            problem.y_rows = RowOrder::token;
            problem.bias = problem.gates = true;
            problem.gate_dtype = DType::fp16;
            problem.index_dtype = DType::int64;
        }
        const auto read = problem_from_text(to_string(problem));
        ASSERT_TRUE(read.has_value()) << to_string(problem);
        EXPECT_EQ(*read, problem);
    }
    for (const Encoding encoding : {Encoding::nf4, Encoding::fp4, Encoding::int8, Encoding::mxfp4, Encoding::fp8,
                                    Encoding::mxfp8, Encoding::nvfp4, Encoding::int4}) {
        problem.weights = usual_format(encoding);
        if (encoding == Encoding::nvfp4) problem.weights.global_scale = GlobalScale::divisor;
        if (encoding == Encoding::fp8) problem.weights.parts = 2;
        WeightFormat other = problem.weights;
        if (encoding == Encoding::nf4) {
            other.scales = DType::uint8;
            other.outer_block = 256;
        }
        if (encoding == Encoding::fp8) other.scales = DType::bf16;
        for (const WeightFormat& format : {problem.weights, other, arranged_format(problem.weights)}) {
            problem.weights = format;
            const auto read = problem_from_text(to_string(problem));
            ASSERT_TRUE(read.has_value()) << to_string(problem);
            EXPECT_EQ(*read, problem) << to_string(problem);
        }
    }
    for (const char* text :
         {"", "E8", "E8 K64 N32 R4 k2 bf17 ekn token->scattered", "E8 K64 N32 R4 k2 bf16 ekn token->scattered more",
          "E0 K64 N32 R4 k2 bf16 ekn token->grouped", "E8 K64 N32 R4 k2 bf16 ekn token->grouped weights: nf5 block 64",
          "E8 K64 N32 R4 k2 bf16 ekn token->grouped weights: nf4 block 64 block 64"}) {
        EXPECT_FALSE(problem_from_text(text).has_value()) << text;
    }
}

}  // namespace
}  // namespace smlora::autotune
