#include "program.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

extern char** environ;

namespace smlora::tool {
namespace {

std::string read_all(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::filesystem::path make_folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "smlora_tune_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed for " + pattern);
    return pattern;
}

void redirect(posix_spawn_file_actions_t& actions, int number, Sink stream, const std::filesystem::path& kept) {
    switch (stream) {
        case Sink::kept:
            posix_spawn_file_actions_addopen(&actions, number, kept.c_str(), O_WRONLY | O_CREAT, 0600);
            return;
        case Sink::full:
            posix_spawn_file_actions_addopen(&actions, number, "/dev/full", O_WRONLY, 0);
            return;
        case Sink::closed:
            posix_spawn_file_actions_addclose(&actions, number);
            return;
    }
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (std::string& string : strings) result.push_back(string.data());
    result.push_back(nullptr);
    return result;
}

}  // namespace

nlohmann::json Outcome::json() const {
    nlohmann::json document = nlohmann::json::parse(out, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << out << err;
    if (document.is_discarded()) return {};
    EXPECT_EQ(document.value("schema_version", 0), 1) << out;
    return document;
}

Outcome run_program(const std::vector<std::string>& arguments, const std::map<std::string, std::string>& environment,
                    Streams streams) {
    std::vector<std::string> argv{SMLORA_TUNE};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    std::map<std::string, std::string> variables = environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        const std::string text = *entry;
        const auto equals = text.find('=');
        variables.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
    std::vector<std::string> envp;
    for (const auto& [name, value] : variables) envp.push_back(name + "=" + value);

    // Files rather than pipes: nothing to drain while the program runs, and no terminal either.
    const std::filesystem::path folder = make_folder();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    redirect(actions, STDOUT_FILENO, streams.out, folder / "out");
    redirect(actions, STDERR_FILENO, streams.err, folder / "err");
    pid_t pid = -1;
    const int error =
        posix_spawn(&pid, argv[0].c_str(), &actions, nullptr, pointers(argv).data(), pointers(envp).data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("cannot start " + argv[0]);
    int status = 0;
    while (waitpid(pid, &status, 0) == -1 && errno == EINTR) {
    }
    Outcome outcome;
    outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    outcome.out = read_all(folder / "out");
    outcome.err = read_all(folder / "err");
    std::filesystem::remove_all(folder);
    return outcome;
}

ProgramTest::ProgramTest() : folder_(make_folder()) {}

ProgramTest::~ProgramTest() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
}

Outcome ProgramTest::run(const std::vector<std::string>& arguments, std::map<std::string, std::string> environment,
                         Streams streams) const {
    environment.insert(
        {{"SMLORA_CACHE_DIR", cache().string()}, {"SMLORA_CACHE_LAYERS", ""}, {"SMLORA_SHIPPED_CACHE", "0"}});
    return run_program(arguments, environment, streams);
}

std::string ProgramTest::write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = folder_ / name;
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
}

}  // namespace smlora::tool
