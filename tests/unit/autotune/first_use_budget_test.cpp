// First use on a machine whose compile times are planted: what a whole step takes, from each call to its return.
#include "autotune/tuner.hpp"

#include "tuning_fixtures.hpp"
#include "unit/tuning/fake_device.hpp"

#include <set>

namespace smlora::autotune {
namespace {

/// One clock for all that is measured, and one cache of kernels.
struct Machine {
    double now = 0;
    double compile_seconds = 3;  ///< of a candidate, whatever it is; of a kernel of the reference a third
    double check_seconds = 0.01;
    double begin_seconds = 0;  ///< before anything can be compiled or run
    std::map<std::string, std::set<std::pair<std::string, std::size_t>>> compiled;  ///< by slot
    int timed = 0;
};

/// A FakeDevice that keeps the machine's time.
class MachineDevice final : public tuning::Device {
 public:
    MachineDevice(Machine& machine, const tuning::SearchSpace& space, std::string slot)
        : machine_(machine), slot_(std::move(slot)), fake_(planted(machine, space)), begin_(machine.now) {
        fake_.compiled = machine.compiled[slot_];
        fake_.reference_seconds = machine.compile_seconds / 3;
    }
    ~MachineDevice() override {
        machine_.compiled[slot_] = fake_.compiled;
        machine_.now = now();
        machine_.timed += static_cast<int>(fake_.timed.size());
    }
    double now() override { return begin_ + fake_.now(); }
    tuning::MemoryNeed memory_need() override { return fake_.memory_need(); }
    std::size_t parts() override { return fake_.parts(); }
    std::optional<tuning::Preparation> find(const tuning::Candidate& one, std::size_t part) override {
        return fake_.find(one, part);
    }
    tuning::Preparation prepare(const tuning::Candidate& one, std::size_t part) override {
        return fake_.prepare(one, part);
    }
    std::optional<tuning::Preparation> find_reference(std::size_t part) override { return fake_.find_reference(part); }
    tuning::Preparation prepare_reference(std::size_t part) override { return fake_.prepare_reference(part); }
    void allocate(int sets, std::uint64_t seed) override { fake_.allocate(sets, seed); }
    tuning::Verification verify(const tuning::Candidate& one) override { return fake_.verify(one); }
    double time(const tuning::Candidate& one, int set, std::size_t round) override {
        return fake_.time(one, set, round);
    }

 private:
    static std::map<std::string, tuning::testing::Planted> planted(const Machine& machine,
                                                                   const tuning::SearchSpace& space) {
        std::map<std::string, tuning::testing::Planted> all;
        for (const tuning::Candidate& one : space) {
            all[one.name] = {3e2 * one.predicted_seconds, machine.compile_seconds, machine.check_seconds};
        }
        return all;
    }

    Machine& machine_;
    const std::string slot_;
    tuning::testing::FakeDevice fake_;
    const double begin_;
};

class FirstUseBudget : public Tuning {
 protected:
    FirstUseBudget() : made(engine(TuningPolicy::first_use)) {
        if (made.impl().kernels.compiler_version().empty()) why_not = "nothing is tuned without NVRTC";
    }

    [[nodiscard]] std::unique_ptr<Tuner> tuner() {
        Engine::Impl& impl = made.impl();
        return std::make_unique<Tuner>(
            TunerParts{impl.options, impl.log, impl.cache, impl.kernels, impl.threads,
                       [this](const MeasuredCase& measured) {
                           machine.now += machine.begin_seconds;
                           return std::make_unique<MachineDevice>(
                               machine, plan::search_space(measured.problem, measured.request, measured.role, h200()),
                               plan::slot_name(measured.problem, measured.request, measured.role));
                       },
                       [this] { return machine.now; }});
    }

    /// The calls of one training step, each by what it took.
    [[nodiscard]] std::vector<double> step(Tuner& tuner) {
        plan::CallRows rows;
        rows.T = 64;
        std::vector<double> took;
        for (const plan::Request& request : plan::step_requests(problem, 64)) {
            const double before = machine.now;
            static_cast<void>(tuner.choose(problem, request, h200(), rows, nullptr));
            took.push_back(machine.now - before);
        }
        return took;
    }

    /// What the log says that a tuning may take, and what it took: the numbers before " s".
    [[nodiscard]] std::vector<double> seconds_in(const std::string& beginning) const {
        std::vector<double> found;
        for (const auto& [level, line] : lines) {
            if (!line.starts_with(beginning)) continue;
            const std::size_t end = line.find(" s");
            found.push_back(std::stod(line.substr(line.rfind(' ', end - 1))));
        }
        return found;
    }

    Engine made;
    Machine machine;
    std::string why_not;
};

TEST_F(FirstUseBudget, AStepTakesTenSecondsAndOneCompileAtMost) {
    if (!why_not.empty()) GTEST_SKIP() << why_not;
    for (const double compile_seconds : {0.01, 0.3, 1.0, 3.0, 8.0, 40.0}) {
        made.impl().cache.clear_records();
        lines.clear();
        machine = {};
        machine.compile_seconds = compile_seconds;
        const double kernel = compile_seconds / 2;
        const auto tuning = tuner();
        double total = 0;
        for (const double took : step(*tuning)) total += took;
        EXPECT_LE(total, 10 + kernel) << "a kernel takes " << kernel << " s";
        const std::vector<double> announced = seconds_in("tuning ");
        const std::vector<double> taken = seconds_in("tuned ");
        ASSERT_EQ(announced.size(), taken.size());
        ASSERT_FALSE(taken.empty());
        double told = 0;
        for (std::size_t i = 0; i < taken.size(); ++i) {
            EXPECT_LE(taken[i], announced[i] + kernel + 0.1) << "of which 0.1 for how they are rounded";
            told += taken[i];
        }
        EXPECT_NEAR(told, total, 0.05 * static_cast<double>(taken.size())) << "the log tells what it took";
        // Heuristic choices until a later process has resumed.
        EXPECT_EQ(machine.timed > 0, compile_seconds < 2);
    }
}

TEST_F(FirstUseBudget, WhatCompilingLeavesNoTimeForIsResumedByLaterProcesses) {
    if (!why_not.empty()) GTEST_SKIP() << why_not;
    machine.compile_seconds = 8;
    bool complete = false;
    int processes = 0;
    while (!complete) {
        ASSERT_LT(++processes, 60);
        const auto tuning = tuner();
        tuning->limit_first_use(3, 3);
        double total = 0;
        for (const double took : step(*tuning)) total += took;
        ASSERT_LE(total, 10 + 4);
        complete = true;
        for (const plan::Request& request : plan::step_requests(problem, 64)) {
            for (const KnownWork& work : tuning->look_up(problem, request, h200())) {
                complete = complete && work.is_complete();
            }
        }
    }
    EXPECT_GT(processes, 3);
    EXPECT_GT(machine.timed, 0);
    lines.clear();
    static_cast<void>(step(*tuner()));
    EXPECT_FALSE(logged("tuning ")) << "all is recorded";
}

TEST_F(FirstUseBudget, WhatIsNotCompilingCountsToo) {
    if (!why_not.empty()) GTEST_SKIP() << why_not;
    machine.compile_seconds = 0;
    machine.begin_seconds = 4;
    const auto tuning = tuner();
    double total = 0;
    for (const double took : step(*tuning)) total += took;
    EXPECT_LE(total, 10 + 4);
    const std::vector<double> taken = seconds_in("tuned ");
    EXPECT_EQ(taken.size(), 3u) << "the first of each operation; others had no time left";
    for (const double seconds : taken) EXPECT_GE(seconds, 4);
    // Without time nothing is measured.
    lines.clear();
    for (const double took : step(*tuning)) EXPECT_EQ(took, 0);
    EXPECT_FALSE(logged("tuning "));
}

}  // namespace
}  // namespace smlora::autotune
