// What tests of records share: a cache with a record in it, and the command that shows it.
#pragma once

#include "program.hpp"

#include "tuning/tuning.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace smlora::tool {

/// On one family of products, as where there is no Hopper.
class TuningCommands : public ProgramTest {
 protected:
    TuningCommands() { setenv("SMLORA_INSTRUCTIONS", "mma", 1); }
    ~TuningCommands() override { unsetenv("SMLORA_INSTRUCTIONS"); }

    /// Puts a record into this test's cache by which the third best prediction for forward is the best, but for what
    /// `change` does to it; its name.
    std::string plant_record(const std::function<void(tuning::Tuning&)>& change = {},
                             const std::string& gpu = "NVIDIA H200");

    /// With the cache in another folder of this test.
    [[nodiscard]] Outcome run_in(const std::string& folder, const std::vector<std::string>& arguments) const;
    [[nodiscard]] std::string file(const std::string& name) const { return (cache().parent_path() / name).string(); }
};

inline const std::vector<std::string> explain{"explain", "--shape", "8,256,512,16,2", "--tokens",
                                              "64",      "--arch",  "sm_90a"};

[[nodiscard]] std::vector<std::string> with(std::vector<std::string> arguments, const std::string& more);

/// Of a document of explain.
[[nodiscard]] nlohmann::json work_called(const nlohmann::json& document, const std::string& slot);

[[nodiscard]] std::string contents(const std::string& file);

}  // namespace smlora::tool
