// What happens when stdout or stderr takes nothing: a result that is lost is a failure, a remark that is lost is not.
#include "program.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

namespace smlora::tool {
namespace {

using Output = ProgramTest;

/// One line for every sub-command that gives results without a GPU.
std::vector<std::vector<std::string>> commands(const std::string& folder) {
    const std::string archive = folder + "/all.tar.gz";
    return {{"--help"},
            {"--version"},
            {"info"},
            {"prewarm", "--help"},
            {"explain", "--shape", "4,64,32,0,2", "--tokens", "8", "--arch", "sm_90a"},
            {"verify", "--device", "cpu", "--shape", "4,24,16,0,2", "--tokens", "3"},
            {"bench", "--device", "cpu", "--shape", "4,24,16,0,2", "--tokens", "3", "--op", "base", "--ceiling-tflops",
             "1", "--ceiling-gbs", "1"},
            {"cache", "path"},
            {"cache", "stats"},
            {"cache", "list"},
            {"cache", "verify"},
            {"cache", "prune", "--max-size", "1K"},
            {"cache", "clear", "--dry-run"},
            {"cache", "clear", "--yes"},
            {"models"},
            {"export", archive},
            {"import", archive}};
}

TEST_F(Output, ThatCannotBeWrittenFailsEverySubCommand) {
    for (const std::vector<std::string>& command : commands(cache().parent_path())) {
        for (const char* json : {"", "--json"}) {
            std::vector<std::string> arguments = command;
            if (*json != '\0') arguments.emplace_back(json);
            for (const auto& [stream, reason] :
                 {std::pair{Sink::full, "No space left on device"}, std::pair{Sink::closed, "it is closed"}}) {
                const Outcome outcome = run(arguments, {}, {.out = stream});
                EXPECT_EQ(outcome.exit_code, 1) << command.front() << ' ' << json << outcome.err;
                const std::string expected = "smlora-tune: stdout: the results cannot be written: ";
                EXPECT_NE(outcome.err.find(expected + reason), std::string::npos)
                    << command.front() << ' ' << json << ": " << outcome.err;
            }
        }
    }
}

TEST_F(Output, IsNeverWrittenIntoAFileOfTheCache) {
    const auto prewarm = [&](Streams streams) {
        return run({"prewarm", "--shape", "2,16,16,0,1", "--tokens", "8", "--arch", "sm_90a"}, {}, streams);
    };
    if (!run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>()) GTEST_SKIP() << "there is no NVRTC";
    EXPECT_EQ(prewarm({.out = Sink::closed}).exit_code, 1);
    EXPECT_EQ(prewarm({.out = Sink::closed, .err = Sink::closed}).exit_code, 1);
    EXPECT_EQ(run({"cache", "verify"}).exit_code, 0);
    EXPECT_NE(prewarm({}).out.find(" 0 compiled"), std::string::npos) << "what was compiled is kept";
}

TEST_F(Output, IsCompleteWithoutStderr) {
    const std::vector<std::string> verify{"verify", "--device", "cpu", "--shape", "4,24,16,0,2", "--tokens", "3"};
    const std::string expected = run(verify).out;
    for (const Sink stream : {Sink::full, Sink::closed}) {
        const Outcome outcome = run(verify, {}, {.err = stream});
        EXPECT_EQ(outcome.exit_code, 0);
        EXPECT_EQ(outcome.out, expected);
        EXPECT_EQ(run({"verify"}, {}, {.err = stream}).exit_code, 2) << "the error is lost, its exit code is not";
    }
}

/// The wait status of the program at the head of a pipe whose reader is gone.
int status_before_a_closed_pipe(bool ignores_sigpipe, const std::string& err) {
    const pid_t child = ::fork();
    if (child == 0) {
        int ends[2];
        if (::pipe(ends) != 0) ::_exit(100);
        ::close(ends[0]);
        ::dup2(ends[1], STDOUT_FILENO);
        ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
        static_cast<void>(std::signal(SIGPIPE, ignores_sigpipe ? SIG_IGN : SIG_DFL));
        ::execl(SMLORA_TUNE, SMLORA_TUNE, "--help", static_cast<char*>(nullptr));
        ::_exit(100);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
}

TEST_F(Output, WithoutAReaderEndsAsThatOfOtherPrograms) {
    const std::string err = write("err", "");
    const int killed = status_before_a_closed_pipe(false, err);
    ASSERT_TRUE(WIFSIGNALED(killed));
    EXPECT_EQ(WTERMSIG(killed), SIGPIPE);
    EXPECT_EQ(std::filesystem::file_size(err), 0U) << "quietly";
    // Of a caller that ignores the signal, the program inherits that.
    const int failed = status_before_a_closed_pipe(true, err);
    ASSERT_TRUE(WIFEXITED(failed));
    EXPECT_EQ(WEXITSTATUS(failed), 1);
    EXPECT_GT(std::filesystem::file_size(err), 0U);
}

}  // namespace
}  // namespace smlora::tool
