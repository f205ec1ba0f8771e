// First use from end to end, in processes of their own as it is in life: the first one tunes, the next one neither
// compiles nor measures, of several that start together one tunes for all, and what one that dies has measured is
// resumed. On an emulated GPU and on a real one.
#include "first_use/process.hpp"
#include "first_use/records.hpp"
#include "support/backend.hpp"
#include "workload/number.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>
#include <vector>

namespace smlora::test {
namespace {

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
