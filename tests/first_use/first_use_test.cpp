// First use from end to end, in processes of their own as it is in life: the first one tunes, the next one neither
// compiles nor measures, of several that start together one tunes for all, and what one that dies has measured is
// resumed. On an emulated GPU and on a real one.
#include "autotune/tuner.hpp"
#include "support/backend.hpp"
#include "support/checks.hpp"
#include "support/runs.hpp"

#include "engine/engine_impl.hpp"
#include "plan/search_space.hpp"
#include "plan/step_kernels.hpp"

#include <smlora/cache.hpp>
#include <smlora/tune.hpp>

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace smlora::test {
namespace {

struct Machine {
    const char* name;
    bool emulated;
    Problem problem;
    std::int64_t T;
    int processes;           ///< that start together
    std::size_t candidates;  ///< that first use tries
    int rounds;
    double short_seconds;  ///< not enough to tune to the end
};

const Machine emulated{"emulated", true, shape(3, 64, 48, 8, 2), 24, 8, 3, 2, 0.01};
const Machine gpu{"gpu", false, shape(64, 2048, 2048, 16, 8), 2048, 8, 24, 9, 1};

std::string read(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

/// A training step on an engine that tunes by default, in the process of its own that the tests below start; what
/// happened goes into a file.
TEST(AProcess, DISABLED_RunsAStep) {
    const Machine& machine = variable("SMLORA_TEST_MACHINE") == emulated.name ? emulated : gpu;
    const TemporaryFolder aside;
    // Of another engine, so that the one under test begins with its first call, in a context that is there already.
    const Engine memory(options_of(Backend::cuda, aside));
    const Projection p(memory, {.problem = machine.problem, .T = machine.T});
    ForwardRun f{p.make_y(), p.make_ranked()};
    BackwardInputRun b{p.make_dx(), p.make_ranked(), {}};
    BackwardLoraRun l{p.make_dA(), p.make_dB()};
    synchronize(memory, {});

    EngineOptions options;
    options.cache_root = variable("SMLORA_TEST_ROOT");
    options.cache_layers.emplace();
    options.tuning_seconds = std::stod(variable("SMLORA_TEST_SECONDS"));
    std::mutex mutex;
    std::map<std::string, int> tuned;
    int started = 0;
    std::vector<std::string> warnings;
    options.log = [&](LogLevel level, std::string_view line) {
        const std::lock_guard lock(mutex);
        if (level == LogLevel::warning) warnings.emplace_back(line);
        if (line.starts_with("tuning ")) ++started;
        if (line.starts_with("tuned ")) ++tuned[std::string(line.substr(6, line.find(" of ") - 6))];
    };
    const auto begin = std::chrono::steady_clock::now();
    const auto milliseconds = [&] {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    };
    const Engine engine(options);
    autotune::tuner_of(engine).limit_first_use(machine.candidates, std::stoi(variable("SMLORA_TEST_ROUNDS")));
    ForwardArgs forward_args = p.forward_args();
    forward_args.y = f.y.view();
    forward_args.xa = p.ranked_view(f.xa);
    forward(engine, {}, p.problem, forward_args);
    const double returned = milliseconds();
    synchronize(engine, {});
    const double finished = milliseconds();
    BackwardInputArgs input_args = p.backward_input_args();
    input_args.dx = b.dx.view();
    input_args.yb = p.ranked_view(b.yb);
    backward_input(engine, {}, p.problem, input_args);
    BackwardLoraArgs lora_args = p.backward_lora_args();
    lora_args.xa = forward_args.xa;
    lora_args.yb = input_args.yb;
    lora_args.dA = l.dA.view();
    lora_args.dB = l.dB.view();
    backward_lora(engine, {}, p.problem, lora_args);
    synchronize(engine, {});
    const bool nvrtc = read("/proc/self/maps").find("libnvrtc") != std::string::npos;

    for (Array* array : {&f.y, &f.xa, &b.dx, &b.yb, &l.dA, &l.dB}) array->download();
    expect_y(p, f.y);
    expect_dx(p, b.dx);
    expect_dA(p, l.dA);
    expect_dB(p, l.dB);
    EXPECT_EQ(warnings, std::vector<std::string>{});

    nlohmann::json report{{"first_call_returned_ms", returned},
                          {"first_call_finished_ms", finished},
                          {"compiles", cache_stats(engine).compiles},
                          {"tunings_started", started},
                          {"tuned", tuned},
                          {"nvrtc_mapped", nvrtc}};
    const gpu::CurrentContext context(engine.impl().contexts, 0);
    for (const plan::Request& request : plan::step_requests(p.problem, p.T)) {
        for (const autotune::KnownWork& work :
             autotune::tuner_of(engine).look_up(p.problem, request, context.facts())) {
            report["choices"][work.slot] = work.choice() ? tuning::to_json(*work.choice()) : nlohmann::ordered_json();
            report["complete"][work.slot] = work.is_complete();
        }
    }
    std::ofstream(variable("SMLORA_TEST_REPORT")) << report.dump();
}

/// The same for a process that tunes on purpose, twice, and then begins anew and stops.
TEST(AProcess, DISABLED_Tunes) {
    const Machine& machine = variable("SMLORA_TEST_MACHINE") == emulated.name ? emulated : gpu;
    EngineOptions engine_options;
    engine_options.cache_root = variable("SMLORA_TEST_ROOT");
    engine_options.cache_layers.emplace();
    engine_options.tuning = TuningPolicy::off;
    const Engine engine(engine_options);
    nlohmann::json report{{"told", 0}};
    TuneOptions options;
    options.tokens = {machine.T};
    options.seconds = std::stod(variable("SMLORA_TEST_SECONDS"));
    options.candidates = static_cast<std::int32_t>(machine.candidates);
    options.rounds = std::stoi(variable("SMLORA_TEST_ROUNDS"));
    options.skew = TuneSkew::zipf;
    const auto tune = [&](const char* name) {
        const TuneReport done = smlora::tune(engine, machine.problem, options);
        report[name]["stopped"] = done.stopped;
        report[name]["seconds"] = done.seconds;
        for (const TunedWork& work : done.works) {
            EXPECT_EQ(work.tokens, machine.T);
            EXPECT_EQ(work.routing, "zipf");
            EXPECT_EQ(work.lacks_choice(), work.choice.empty());
            report[name]["outcomes"][work.work] = smlora::name(work.outcome);
            report[name]["choices"][work.work] = work.choice;
        }
    };
    options.progress = [&](const TuneProgress& progress) {
        EXPECT_EQ(progress.tokens, machine.T);
        report["told"] = report["told"].get<int>() + 1;
        return true;
    };
    tune("first");
    options.progress = {};
    tune("second");
    options.again = true;
    options.progress = [](const TuneProgress&) { return false; };
    tune("stopped");
    options.progress = [](const TuneProgress&) -> bool { throw std::runtime_error("no more of it"); };
    EXPECT_THROW(tune("thrown"), std::runtime_error);
    options.again = false;
    options.progress = {};
    tune("last");
    std::ofstream(variable("SMLORA_TEST_REPORT")) << report.dump();
}

/// How far a process may tune: by default to the end, so that the next one has nothing to go on with.
struct Limits {
    double seconds = 500;
    std::optional<int> rounds = {};  ///< instead of the machine's
    const char* does = "RunsAStep";  ///< which of the tests of AProcess it is
};

/// A process that works with its cache in `root`.
class Process {
 public:
    Process(const Machine& machine, const std::filesystem::path& root, const Limits& limits) {
        std::string environment = fmt::format(
            "SMLORA_TEST_MACHINE={} SMLORA_TEST_ROOT={} SMLORA_TEST_REPORT={} SMLORA_TEST_SECONDS={} "
            "SMLORA_TEST_ROUNDS={} ",
            machine.name, root.string(), report_file().string(), limits.seconds,
            limits.rounds.value_or(machine.rounds));
        // Nothing of what is set where the tests run.
        environment += "SMLORA_SHIPPED_CACHE=0 SMLORA_TEST_BACKENDS=cuda ";
#ifdef SMLORA_EMULATOR_LIBRARIES
        if (machine.emulated) environment += fmt::format("LD_LIBRARY_PATH={} ", SMLORA_EMULATOR_LIBRARIES);
#endif
        // The shell becomes env and that the program, whose id is therefore the one that is known here.
        std::string command = fmt::format(
            "exec env -u SMLORA_TUNING -u SMLORA_INSTRUCTIONS {} {} --gtest_also_run_disabled_tests "
            "--gtest_filter=AProcess.DISABLED_{} > {} 2>&1",
            environment, std::filesystem::read_symlink("/proc/self/exe").string(), limits.does, out_file().string());
        std::string shell = "sh", option = "-c";
        char* const arguments[] = {shell.data(), option.data(), command.data(), nullptr};
        const int error = ::posix_spawn(&pid_, "/bin/sh", nullptr, nullptr, arguments, environ);
        if (error != 0) throw std::system_error(error, std::generic_category(), "posix_spawn /bin/sh");
    }
    ~Process() { static_cast<void>(kill()); }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    [[nodiscard]] bool has_ended() { return status_.has_value() || wait(WNOHANG); }

    /// Ends it without warning; whether it had not ended by itself.
    bool kill() {
        if (!has_ended()) {
            ::kill(pid_, SIGKILL);
            wait(0);
        }
        return WIFSIGNALED(*status_) && WTERMSIG(*status_) == SIGKILL;
    }

    /// What it has to say once it is done.
    [[nodiscard]] nlohmann::json report() {
        if (!has_ended()) wait(0);
        EXPECT_TRUE(WIFEXITED(*status_) && WEXITSTATUS(*status_) == 0) << read(out_file());
        nlohmann::json report = nlohmann::json::parse(read(report_file()), nullptr, false);
        EXPECT_TRUE(report.is_object()) << read(out_file());
        return report;
    }

 private:
    [[nodiscard]] std::filesystem::path report_file() const { return folder_.path() / "report"; }
    [[nodiscard]] std::filesystem::path out_file() const { return folder_.path() / "out"; }

    bool wait(int options) {
        int status = 0;
        pid_t ended = 0;
        while ((ended = ::waitpid(pid_, &status, options)) < 0 && errno == EINTR) {
        }
        if (ended == pid_) status_ = status;
        return status_.has_value();
    }

    TemporaryFolder folder_;
    pid_t pid_ = -1;
    std::optional<int> status_;
};

class FirstUse : public testing::TestWithParam<Machine> {
 protected:
    void SetUp() override {
        if (GetParam().emulated) {
#ifdef SMLORA_EMULATOR_LIBRARIES
            if (!std::filesystem::exists(SMLORA_EMULATOR_LIBRARIES)) GTEST_SKIP() << "there is no emulator";
#else
            GTEST_SKIP() << "there is no emulator";
#endif
        } else if (const auto reason = why_not(Backend::cuda)) {
            GTEST_SKIP() << *reason;
        }
    }

    /// What a process reports that runs a step with its cache in `root`.
    [[nodiscard]] static nlohmann::json run_process(const std::filesystem::path& root, const Limits& limits = {}) {
        return Process(GetParam(), root, limits).report();
    }

    /// A cache in which a process has run its first step, and what it reported. Made once a machine.
    struct Tuned {
        TemporaryFolder folder;
        nlohmann::json report;
        [[nodiscard]] std::filesystem::path root() const { return folder.path() / "cache"; }
    };
    [[nodiscard]] static const Tuned& tuned() {
        static std::map<std::string, Tuned> made;
        const auto [entry, is_new] = made.try_emplace(GetParam().name);
        if (is_new) entry->second.report = run_process(entry->second.root());
        return entry->second;
    }

    /// A cache in `folder` with the kernels of a first step and without what was measured.
    [[nodiscard]] static std::filesystem::path untuned(const TemporaryFolder& folder) {
        std::filesystem::path root = folder.path() / "cache";
        std::filesystem::copy(tuned().root(), root, std::filesystem::copy_options::recursive);
        std::filesystem::permissions(root, std::filesystem::perms::owner_all);
        std::filesystem::remove_all(root / "v1/tuning");
        return root;
    }
};

const std::vector<std::string> always_tuned{"forward", "dx", "gradients"};

std::vector<nlohmann::json> records_in(const std::filesystem::path& root) {
    std::vector<nlohmann::json> records;
    if (!std::filesystem::exists(root / "v1/tuning")) return records;
    for (const auto& item : std::filesystem::recursive_directory_iterator(root / "v1/tuning")) {
        if (item.path().extension() != ".json") continue;
        records.push_back(nlohmann::json::parse(read(item.path()), nullptr, false));
        EXPECT_TRUE(records.back().is_object()) << item.path() << " is no whole record";
    }
    return records;
}

/// What is recorded of forward.
struct Measured {
    explicit Measured(const std::filesystem::path& root) {
        for (const nlohmann::json& record : records_in(root)) {
            for (const auto& tuning : record["tunings"]) {
                if (tuning["slot"] != "forward") continue;
                complete = tuning["complete"];
                for (const auto& candidate : tuning["candidates"]) add(candidate);
            }
        }
    }
    void add(const nlohmann::json& candidate) {
        const std::string name = candidate["name"];
        const nlohmann::json& samples_us = candidate["samples_us"];
        samples[name] = samples_us;
        counts[name] =
            std::count_if(samples_us.begin(), samples_us.end(), [](const auto& one) { return one.is_number(); });
        // Once there is no more to be measured, what samples come to stands in their place.
        if (candidate["timing"].is_object()) counts[name] += candidate["timing"]["samples"].get<std::int64_t>();
        taken += counts[name];
        rounds = std::max(rounds, static_cast<int>(samples_us.size()));
    }

    bool complete = false;
    std::map<std::string, nlohmann::json> samples;  ///< by candidate, null where it took no part
    std::map<std::string, std::int64_t> counts;     ///< of samples, by candidate
    std::int64_t taken = 0;                         ///< of all candidates
    int rounds = 0;
};

void expect_kept(const Measured& before, const Measured& after) {
    for (const auto& [name, samples] : before.samples) {
        const auto found = after.samples.find(name);
        ASSERT_NE(found, after.samples.end()) << name;
        EXPECT_GE(after.counts.at(name), before.counts.at(name)) << name;
        if (after.complete) continue;
        ASSERT_GE(found->second.size(), samples.size()) << name;
        EXPECT_TRUE(std::equal(samples.begin(), samples.end(), found->second.begin()))
            << name << ": " << samples << " became " << found->second;
    }
}

TEST_P(FirstUse, MeasuresOnTheCallersRowsAndRecordsIt) {
    const nlohmann::json& first = tuned().report;
    ASSERT_TRUE(first.is_object());
    for (const std::string& slot : always_tuned) {
        EXPECT_EQ(first["tuned"].value(slot, 0), 1) << first;
        EXPECT_TRUE(first["choices"][slot].is_object()) << first;
        EXPECT_EQ(first["complete"][slot], true) << first;
    }
    EXPECT_GT(first["compiles"], 0);
    const std::vector<nlohmann::json> records = records_in(tuned().root());
    ASSERT_EQ(records.size(), 1u);
    EXPECT_GE(records[0]["tunings"].size(), always_tuned.size());
    for (const auto& tuning : records[0]["tunings"]) {
        EXPECT_EQ(tuning["workload"]["routing"], "the caller's");
        EXPECT_EQ(tuning["workload"]["tokens"], GetParam().T);
    }
    fmt::print("first use: the first call returned after {:.0f} ms, {} kernels compiled\n",
               first["first_call_returned_ms"].get<double>(), first["compiles"].get<int>());
}

TEST_P(FirstUse, TheNextProcessCompilesAndMeasuresNothing) {
    ASSERT_TRUE(tuned().report.is_object());
    const nlohmann::json next = run_process(tuned().root());
    ASSERT_TRUE(next.is_object());
    EXPECT_EQ(next["compiles"], 0);
    EXPECT_EQ(next["tunings_started"], 0);
    EXPECT_EQ(next["nvrtc_mapped"], false);
    EXPECT_EQ(next["choices"], tuned().report["choices"]);
    fmt::print(
        "warm cache: the first call returned {:.1f} ms after the engine was begun, its result was there after "
        "{:.1f} ms\n",
        next["first_call_returned_ms"].get<double>(), next["first_call_finished_ms"].get<double>());
}

TEST_P(FirstUse, OfProcessesThatStartTogetherOneTunesForAll) {
    ASSERT_TRUE(tuned().report.is_object());
    // Kernels are there, so that none waits for a compile longer than it waits for a lock; records are not.
    const TemporaryFolder folder;
    const std::filesystem::path root = untuned(folder);
    std::vector<nlohmann::json> reports(index(GetParam().processes));
    std::vector<std::thread> threads;
    for (nlohmann::json& report : reports) threads.emplace_back([&] { report = run_process(root); });
    for (std::thread& thread : threads) thread.join();
    std::map<std::string, int> tunings;
    for (const nlohmann::json& report : reports) {
        ASSERT_TRUE(report.is_object());
        for (const auto& [slot, count] : report["tuned"].items()) tunings[slot] += count.get<int>();
        EXPECT_EQ(report["choices"], reports[0]["choices"]);
    }
    for (const std::string& slot : always_tuned) EXPECT_EQ(tunings[slot], 1) << slot;
    for (const auto& [slot, count] : tunings) EXPECT_EQ(count, 1) << slot;
}

TEST_P(FirstUse, WhatIsCutShortIsUsedAndGoneOnWithByTheNextProcess) {
    ASSERT_TRUE(tuned().report.is_object());
    const TemporaryFolder folder;
    const std::filesystem::path root = untuned(folder);
    int processes = 0;
    bool complete = false;
    while (!complete) {
        ASSERT_LT(++processes, 100);
        const nlohmann::json report = run_process(root, {.seconds = GetParam().short_seconds});
        ASSERT_TRUE(report.is_object());
        for (const std::string& slot : always_tuned) ASSERT_TRUE(report["complete"].contains(slot)) << report;
        // Those that the choices so far need, too.
        complete = std::ranges::all_of(report["complete"], [](const auto& done) { return done == true; });
        // However little it is, the first operation is measured; the budget is for all of them together.
        if (processes == 1) {
            EXPECT_EQ(report["tuned"].value("forward", 0), 1) << report;
            EXPECT_EQ(report["complete"]["forward"], false) << report;
            EXPECT_TRUE(report["complete"]["gradients"] == false || !GetParam().emulated) << report;
        }
        EXPECT_TRUE(report["choices"]["forward"].is_object()) << report;
    }
    EXPECT_GT(processes, 1);
    const nlohmann::json last = run_process(root);
    EXPECT_EQ(last["tunings_started"], 0) << last;
    fmt::print("{} s at a time: tuned to the end by {} processes\n", GetParam().short_seconds, processes);
}

TEST_P(FirstUse, WhatAKilledProcessHasMeasuredIsGoneOnWithByTheNextProcess) {
    ASSERT_TRUE(tuned().report.is_object());
    const TemporaryFolder folder;
    const std::filesystem::path root = untuned(folder);
    // It would time the candidates for seconds.
    Process killed(GetParam(), root, {.rounds = 1'000'000});
    Measured seen(root);
    const auto begin = std::chrono::steady_clock::now();
    while (seen.taken == 0) {
        ASSERT_FALSE(killed.has_ended()) << killed.report();
        ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::minutes(1));
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        seen = Measured(root);
    }
    ASSERT_TRUE(killed.kill());
    const Measured left(root);
    expect_kept(seen, left);
    EXPECT_FALSE(left.complete) << "it was timing";

    const nlohmann::json next = run_process(root, {.rounds = left.rounds + GetParam().rounds});
    ASSERT_TRUE(next.is_object());
    for (const std::string& slot : always_tuned) {
        EXPECT_EQ(next["tuned"].value(slot, 0), 1) << next;
        EXPECT_EQ(next["complete"][slot], true) << next;
    }
    const Measured gone_on(root);
    expect_kept(left, gone_on);
    EXPECT_TRUE(gone_on.complete);
    EXPECT_GT(gone_on.taken, left.taken);
    EXPECT_EQ(run_process(root)["tunings_started"], 0);
    fmt::print("killed after {} samples of forward, resumed to {}\n", left.taken, gone_on.taken);
}

TEST_P(FirstUse, WhatIsTunedOnPurposeIsRecordedForAllThatFollows) {
    ASSERT_TRUE(tuned().report.is_object());
    const TemporaryFolder folder;
    const std::filesystem::path root = untuned(folder);
    const nlohmann::json report = run_process(root, {.does = "Tunes"});
    ASSERT_TRUE(report.is_object());
    EXPECT_GT(report["told"], 0);
    for (const std::string& slot : always_tuned) {
        EXPECT_EQ(report["first"]["outcomes"][slot], "tuned") << report;
        EXPECT_NE(report["first"]["choices"][slot], "") << report;
    }
    for (const auto& [slot, outcome] : report["second"]["outcomes"].items()) EXPECT_EQ(outcome, "recorded") << slot;
    EXPECT_EQ(report["second"]["choices"], report["first"]["choices"]);
    EXPECT_EQ(report["first"]["stopped"], false);
    // A complete tuning stays until its successor is complete.
    EXPECT_EQ(report["stopped"]["stopped"], true);
    EXPECT_FALSE(report["stopped"].contains("outcomes")) << report;
    EXPECT_EQ(report["last"], (nlohmann::json{{"stopped", false},
                                              {"seconds", report["last"]["seconds"]},
                                              {"outcomes", report["second"]["outcomes"]},
                                              {"choices", report["first"]["choices"]}}));
    const nlohmann::json step = run_process(root);
    ASSERT_TRUE(step.is_object());
    EXPECT_EQ(step["tunings_started"], 0) << step;
}

INSTANTIATE_TEST_SUITE_P(Emulated, FirstUse, testing::Values(emulated), [](const auto&) { return "sm_90"; });
INSTANTIATE_TEST_SUITE_P(Gpu, FirstUse, testing::Values(gpu), [](const auto&) { return "cuda"; });

}  // namespace
}  // namespace smlora::test
