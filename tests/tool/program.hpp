// Runs smlora-tune as a user does.
#pragma once

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace smlora::tool {

struct Outcome {
    int exit_code = -1;  ///< -1 when a signal ended it
    std::string out;
    std::string err;

    /// What stdout holds; fails the test when that is not JSON of the schema that the tests know.
    [[nodiscard]] nlohmann::json json() const;
};

/// What the program writes a stream to.
enum class Sink {
    kept,    ///< a file, whose content the outcome has
    full,    ///< /dev/full, on which every write fails
    closed,  ///< nothing is open under its number
};
struct Streams {
    Sink out = Sink::kept;
    Sink err = Sink::kept;
};

/// stdout and stderr are files, never a terminal. `environment` is added to the caller's.
[[nodiscard]] Outcome run_program(const std::vector<std::string>& arguments,
                                  const std::map<std::string, std::string>& environment = {}, Streams streams = {});

/// A test with a folder of its own, in which the program keeps its cache.
class ProgramTest : public testing::Test {
 protected:
    ProgramTest();
    ~ProgramTest() override;

    /// With the cache in the folder of this test.
    [[nodiscard]] Outcome run(const std::vector<std::string>& arguments,
                              std::map<std::string, std::string> environment = {}, Streams streams = {}) const;

    /// Writes a file into the folder and returns its path.
    [[nodiscard]] std::string write(const std::string& name, const std::string& text) const;

    [[nodiscard]] std::filesystem::path cache() const { return folder_ / "cache"; }

 private:
    std::filesystem::path folder_;
};

}  // namespace smlora::tool
