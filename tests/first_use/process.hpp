// A process of its own that runs one of the tests of process_test.cpp.
#pragma once

#include "first_use/machine.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <csignal>
#include <optional>
#include <string>
#include <system_error>

namespace smlora::test {

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

}  // namespace smlora::test
