#include "tuning_commands.hpp"

#include "autotune/tuner.hpp"
#include "engine/engine_impl.hpp"
#include "gpu/device.hpp"
#include "plan/step_kernels.hpp"
#include "tests/support/tunings.hpp"
#include "tuning/record_store.hpp"

#include <fstream>
#include <iterator>
#include <utility>

namespace smlora::tool {

std::string TuningCommands::plant_record(const std::function<void(tuning::Tuning&)>& change, const std::string& gpu) {
    EngineOptions options;
    options.backend = Backend::cpu;
    options.cache_root = cache();
    options.cache_layers.emplace();
    const Engine engine(options);
    const gpu::DeviceFacts facts = gpu::facts_of(gpu);
    Problem problem;
    problem.E = 8;
    problem.K = 256;
    problem.N = 512;
    problem.R = 16;
    problem.top_k = 2;
    const plan::Request request = plan::step_requests(problem, 64).at(0);
    const autotune::KnownWork work = autotune::tuner_of(engine).look_up(problem, request, facts).at(0);
    tuning::Tuning tuning = test::measured_tuning(work, [](const tuning::Candidate&, std::size_t at) {
        const double factor = at == 2 ? 0.5 : 1;
        return std::vector<double>{1e-5 * factor, 1.01e-5 * factor, 0.99e-5 * factor};
    });
    tuning.trials[1].verdict = tuning::Verdict::refused;
    tuning.trials[1].why = "spills 8 bytes of registers";
    tuning.trials[1].samples.clear();
    tuning.choice = tuning.trials[2].candidate.configuration;
    if (change) change(tuning);
    tuning::RecordStore store(engine.impl().cache, engine.impl().log);
    EXPECT_TRUE(store.save(work.name, tuning));
    return tuning.trials[2].candidate.name;
}

Outcome TuningCommands::run_in(const std::string& folder, const std::vector<std::string>& arguments) const {
    return run_program(
        arguments, {{"SMLORA_CACHE_DIR", file(folder)}, {"SMLORA_CACHE_LAYERS", ""}, {"SMLORA_SHIPPED_CACHE", "0"}});
}

std::vector<std::string> with(std::vector<std::string> arguments, const std::string& more) {
    arguments.push_back(more);
    return arguments;
}

nlohmann::json work_called(const nlohmann::json& document, const std::string& slot) {
    for (const auto& work : document["cases"][0]["works"]) {
        if (work["slot"] == slot) return work;
    }
    ADD_FAILURE() << "no work called " << slot;
    return {};
}

std::string contents(const std::string& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace smlora::tool
