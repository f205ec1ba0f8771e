// cache clear, prune, verify --repair and stats: what they say, ask and remove.
#include "tuning_commands.hpp"

#include "cache/layer.hpp"
#include "util/files.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace smlora::tool {
namespace {

class CacheCare : public TuningCommands {
 protected:
    /// A sound kernel, last used `age` ago; its file.
    std::filesystem::path plant_kernel(char digit, const std::string& arch = "sm_90a",
                                       std::chrono::hours age = std::chrono::hours(0)) const {
        std::string cubin(1000, digit);
        cubin.replace(0, 6,
                      "\x7f"
                      "ELF\x02\x01");
        cubin[18] = static_cast<char>(190);
        cubin[19] = '\0';
        const std::string key(32, digit);
        const std::filesystem::path file = cache::entry_file(cache(), key);
        std::filesystem::create_directories(file.parent_path());
        for (auto folder = file.parent_path(); folder != cache().parent_path(); folder = folder.parent_path()) {
            std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
        }
        EXPECT_EQ(util::publish_file(
                      util::real_file_system(), util::At(file),
                      cache::encode_for(key, {{{"kernel", "sample"}, {"arch", arch}, {"registers", 1}}, cubin})),
                  0);
        std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() - age);
        return file;
    }

    /// A folder of the cache that nobody reads, whoever runs the test: a link.
    void spoil(const std::string& name) const {
        std::filesystem::create_directories(cache() / "v1");
        for (const auto& folder : {cache(), cache() / "v1"}) {
            std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
        }
        std::filesystem::remove_all(cache() / "v1" / name);
        std::filesystem::create_symlink(cache() / "v1" / name, cache() / "v1" / name);
    }

    /// Runs with a terminal as stdin, on which `answer` is typed; the exit code.
    [[nodiscard]] int run_at_terminal(const std::vector<std::string>& arguments, const std::string& answer) const {
        const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
        EXPECT_GE(terminal, 0);
        EXPECT_EQ(::grantpt(terminal), 0);
        EXPECT_EQ(::unlockpt(terminal), 0);
        const std::string other_end = ::ptsname(terminal);
        const ::pid_t child = ::fork();
        if (child == 0) {
            ::setsid();
            ::setenv("SMLORA_CACHE_DIR", cache().c_str(), 1);
            ::setenv("SMLORA_SHIPPED_CACHE", "0", 1);
            ::dup2(::open(other_end.c_str(), O_RDWR), STDIN_FILENO);
            ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);
            ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
            std::vector<std::string> words{SMLORA_TUNE};
            words.insert(words.end(), arguments.begin(), arguments.end());
            std::vector<char*> argv;
            for (std::string& word : words) argv.push_back(word.data());
            argv.push_back(nullptr);
            ::execv(SMLORA_TUNE, argv.data());
            ::_exit(100);
        }
        EXPECT_EQ(::write(terminal, answer.data(), answer.size()), static_cast<::ssize_t>(answer.size()));
        int status = 0;
        ::waitpid(child, &status, 0);
        ::close(terminal);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
};

TEST_F(CacheCare, AFolderThatIsNotReadIsAnErrorAndNeverEmpty) {
    for (const char* name : {"kernels", "tuning"}) {
        std::filesystem::remove_all(cache());
        spoil(name);
        const std::string folder = (cache() / "v1" / name).string();
        for (const std::vector<std::string>& command :
             std::vector<std::vector<std::string>>{{"cache", "stats"},
                                                   {"cache", "stats", "--json"},
                                                   {"cache", "list"},
                                                   {"cache", "verify"},
                                                   {"cache", "verify", "--repair"},
                                                   {"cache", "clear", "all", "--yes"},
                                                   {"cache", "clear", "all", "--dry-run"},
                                                   {"cache", "prune", "--max-size", "0"},
                                                   {"export", file("all.tar.gz")}}) {
            const Outcome outcome = run(command);
            EXPECT_EQ(outcome.exit_code, 1) << command[0] << ' ' << command[1] << outcome.out;
            EXPECT_NE(
                (outcome.out + outcome.err).find(folder + ": expected a folder, but it is a symbolic link; run `rm"),
                std::string::npos)
                << command[0] << ' ' << command[1] << outcome.out << outcome.err;
        }
        EXPECT_FALSE(std::filesystem::exists(file("all.tar.gz")));
    }
}

TEST_F(CacheCare, ClearAndPruneRemoveTheRestAndSaySo) {
    const std::string folder = (cache() / "v1/kernels/cc").string();
    for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
             {"cache", "clear", "all", "--yes"}, {"cache", "prune", "--max-size", "0"}}) {
        plant_kernel('a');
        spoil("kernels/cc");
        const Outcome outcome = run(command);
        EXPECT_EQ(outcome.exit_code, 1) << outcome.out;
        EXPECT_NE(outcome.out.find(cache().string() + ": 1 kernel "), std::string::npos) << outcome.out;
        EXPECT_NE(outcome.err.find(folder + ": expected a folder, but it is a symbolic link; run `rm"),
                  std::string::npos)
            << outcome.err;
        EXPECT_EQ(outcome.err.find("more)"), std::string::npos) << outcome.err;
        EXPECT_FALSE(std::filesystem::exists(cache::entry_file(cache(), std::string(32, 'a'))));
    }
}

TEST_F(CacheCare, ClearAsksOnATerminalAndRefusesWithoutOne) {
    const std::filesystem::path kernel = plant_kernel('a');
    const Outcome refused = run({"cache", "clear"});
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("expected --yes"), std::string::npos) << refused.err;
    EXPECT_NE(refused.err.find("1 kernel (1.1 KiB) of " + cache().string()), std::string::npos) << refused.err;
    for (const char* answer : {"n\n", "\n", "yess\n", "\x04"}) {
        EXPECT_EQ(run_at_terminal({"cache", "clear"}, answer), 1) << answer;
        EXPECT_TRUE(std::filesystem::exists(kernel)) << answer;
    }
    EXPECT_EQ(run_at_terminal({"cache", "clear"}, "y\n"), 0);
    EXPECT_FALSE(std::filesystem::exists(kernel));
    plant_kernel('a');
    EXPECT_EQ(run({"cache", "clear", "-y"}).out, cache().string() + ": 1 kernel removed, 0 tuning records left\n");
}

TEST_F(CacheCare, ADryRunOfClearRemovesNothing) {
    plant_kernel('a');
    plant_kernel('b');
    plant_record();
    EXPECT_EQ(run({"cache", "clear", "all", "--dry-run"}).out,
              "would remove 2 kernels (2.2 KiB) and 1 tuning record and 0 bundles of " + cache().string() + "\n");
    const nlohmann::json said = run({"cache", "clear", "--dry-run", "--json"}).json();
    EXPECT_EQ(said["removed"], 2);
    EXPECT_EQ(said["kernels_left"], 0) << "as prune says it";
    EXPECT_EQ(said["records_left"], 1);
    EXPECT_EQ(said["folder"], cache().string());
    EXPECT_EQ(run({"cache", "stats", "--json"}).json()["entries"], 2);
    const nlohmann::json done = run({"cache", "clear", "all", "--yes", "--json"}).json();
    EXPECT_EQ(done["removed"], 2);
    EXPECT_EQ(done["removed_records"], 1);
    EXPECT_EQ(done["kernels_left"], 0);
    EXPECT_EQ(done["records_left"], 0);
}

TEST_F(CacheCare, PruneTakesSizesAgesAndArchitectures) {
    using std::chrono::hours;
    plant_kernel('a', "sm_90a", hours(1));
    plant_kernel('b', "sm_80", hours(2));
    plant_kernel('c', "sm_90a", hours(24 * 40));
    const auto left = [&](const std::vector<std::string>& options) {
        std::vector<std::string> command{"cache", "prune", "--json"};
        command.insert(command.end(), options.begin(), options.end());
        const Outcome outcome = run(command);
        EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
        return outcome.json()["kernels_left"].get<int>();
    };
    EXPECT_EQ(left({"--older-than", "30d", "--dry-run"}), 2);
    EXPECT_EQ(left({"--max-size", "0", "--dry-run"}), 0);
    EXPECT_EQ(left({"--older-than", "30d"}), 2);
    EXPECT_EQ(left({"--arch", "sm_80", "--older-than", "3h"}), 2);
    EXPECT_EQ(left({"--arch", "sm_80"}), 1);
    EXPECT_EQ(left({"--max-size", "1G"}), 1);
    EXPECT_EQ(run({"cache", "prune", "--max-size", "1K"}).out,
              cache().string() + ": 1 kernel (1.1 KiB) removed, 0 (0 B) left\n");
    for (const auto& [options, part] : std::vector<std::pair<std::vector<std::string>, std::string>>{
             {{}, "expected --max-size, --older-than or --arch"},
             {{"--max-size", "many"}, "--max-size: expected a number of bytes, or one with the suffix K, M or G, got "},
             {{"--older-than", "30"}, "--older-than: expected a whole number with s, m, h or d, got '30'"},
             {{"--older-than", "-1d"}, "--older-than: "},
             {{"--older-than", "99999999999999999d"}, "--older-than: "},
             {{"--arch", "sm90"}, "--arch: expected one of sm_80, "}}) {
        std::vector<std::string> command{"cache", "prune"};
        command.insert(command.end(), options.begin(), options.end());
        const Outcome outcome = run(command);
        EXPECT_EQ(outcome.exit_code, 2) << part;
        EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
    }
}

TEST_F(CacheCare, RepairRemovesWhatIsUnsoundAndSaysWhat) {
    const std::filesystem::path sound = plant_kernel('a');
    const std::filesystem::path damaged = plant_kernel('b');
    std::ofstream(damaged, std::ios::app) << "more";
    const std::filesystem::path open = plant_kernel('c');
    std::filesystem::permissions(open, std::filesystem::perms::all);
    plant_record();
    const std::filesystem::path record = cache() / "v1/tuning/NVIDIA_H200" / (std::string(32, 'b') + ".json");
    std::ofstream(record) << "cubin";
    std::filesystem::permissions(record, std::filesystem::perms::owner_read);

    EXPECT_EQ(run({"cache", "verify"}).exit_code, 1);
    EXPECT_TRUE(std::filesystem::exists(damaged)) << "nothing is removed unasked";
    const Outcome repaired = run({"cache", "verify", "--repair"});
    EXPECT_EQ(repaired.exit_code, 0) << repaired.out << repaired.err;
    for (const std::filesystem::path& file : {damaged, open, record}) {
        EXPECT_FALSE(std::filesystem::exists(file));
        EXPECT_NE(repaired.out.find(file.string() + ": "), std::string::npos) << repaired.out;
    }
    EXPECT_NE(repaired.out.find("3 files removed, 0 problems left\n"), std::string::npos) << repaired.out;
    EXPECT_TRUE(std::filesystem::exists(sound));
    EXPECT_EQ(run({"cache", "stats", "--json"}).json()["records"], 1);
    EXPECT_EQ(run({"cache", "verify"}).exit_code, 0);
}

TEST_F(CacheCare, ANamedLayerThatIsMissingIsSaidToBe) {
    plant_kernel('a');
    const std::map<std::string, std::string> layers{{"SMLORA_CACHE_LAYERS", cache().string() + ":" + file("nowhere")},
                                                    {"SMLORA_JIT", "off"}};
    const std::string said = "smlora-tune: cache layer " + file("nowhere") + " does not exist\n";
    for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{{"cache", "verify"},
                                                                                         {"cache", "list"},
                                                                                         {"cache", "inspect", "a"},
                                                                                         {"export", file("all.tar.gz")},
                                                                                         explain}) {
        const Outcome outcome = run(with(with(command, "--cache-dir"), file("own")), layers);
        EXPECT_NE(outcome.err.find(said), std::string::npos) << command[0] << outcome.err;
        EXPECT_EQ(outcome.err.find("cache layer " + cache().string()), std::string::npos) << outcome.err;
    }
    const std::vector<std::string> prewarm{"prewarm", "--shape", "2,16,16,0,1", "--tokens", "8", "--arch", "sm_90a"};
    EXPECT_NE(run(prewarm, layers).err.find(said), std::string::npos);
}

TEST_F(CacheCare, RepairLeavesReadOnlyLayersAlone) {
    const std::filesystem::path damaged = plant_kernel('b');
    std::ofstream(damaged, std::ios::app) << "more";
    const Outcome outcome = run({"cache", "verify", "--repair", "--json", "--cache-dir", file("other")},
                                {{"SMLORA_CACHE_LAYERS", cache().string()}});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.json()["unsound"][0]["removed"], false);
    EXPECT_TRUE(std::filesystem::exists(damaged));
}

TEST_F(CacheCare, StatsTellAgesAndUseOverProcesses) {
    plant_kernel('a', "sm_90a", std::chrono::hours(1));
    plant_kernel('b', "sm_90a", std::chrono::hours(50));
    std::ofstream(cache() / "v1/uses") << "3 1 0\n4 2 5\n";
    const nlohmann::json stats = run({"cache", "stats", "--json"}).json();
    EXPECT_NEAR(stats["newest_seconds"].get<double>(), 3600, 300);
    EXPECT_NEAR(stats["oldest_seconds"].get<double>(), 180000, 300);
    EXPECT_EQ(stats["hits"], 7);
    EXPECT_EQ(stats["misses"], 3);
    EXPECT_EQ(stats["evictions"], 5);
    EXPECT_NE(run({"cache", "stats"}).out.find("Hits:           7 / 10 (70.00%)\n"), std::string::npos);
    EXPECT_EQ(run({"cache", "stats", "--zero", "--json"}).json()["hits"], 7) << "those until then";
    const nlohmann::json after = run({"cache", "stats", "--json"}).json();
    EXPECT_EQ(after["hits"], 0);
    EXPECT_EQ(after["evictions"], 0);
    EXPECT_EQ(after["entries"], 2);
}

TEST_F(CacheCare, ImportSaysWhatTheLimitLeaves) {
    for (const char digit : {'a', 'b', 'c', 'd', 'e', 'f'}) plant_kernel(digit);
    ASSERT_EQ(run({"export", file("all.tar.gz")}).exit_code, 0);
    const Outcome all = run_in("large", {"import", file("all.tar.gz")});
    EXPECT_EQ(all.out, "6 kernels and 0 tunings imported, 0 kernels and 0 tunings were here already\n");
    const Outcome outcome =
        run({"import", file("all.tar.gz"), "--json", "--cache-dir", file("small")}, {{"SMLORA_CACHE_LIMIT", "4000"}});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const nlohmann::json said = outcome.json();
    const int left = run({"cache", "stats", "--json", "--cache-dir", file("small")}).json()["entries"].get<int>();
    EXPECT_LT(left, 6);
    EXPECT_EQ(said["kernels"], 6);
    EXPECT_EQ(said["evicted_kernels"], 6 - left);
    EXPECT_EQ(said["evicted_tunings"], 0);
    EXPECT_EQ(said["limit_bytes"], 4000);
}

TEST_F(CacheCare, ImportSaysWhichTuningsTheLimitLeaves) {
    plant_record({}, "NVIDIA H200");
    plant_record({}, "NVIDIA H100 80GB HBM3");
    ASSERT_EQ(run({"export", file("all.tar.gz")}).exit_code, 0);
    const std::vector<std::string> import{"import", file("all.tar.gz"), "--json", "--cache-dir", file("small")};
    const nlohmann::json said = run(import, {{"SMLORA_CACHE_LIMIT", "10"}}).json();
    EXPECT_EQ(said["tunings"], 2);
    const int left = run({"cache", "stats", "--json", "--cache-dir", file("small")}).json()["records"].get<int>();
    EXPECT_LT(left, 2);
    EXPECT_EQ(said["evicted_tunings"], 2 - left);
}

TEST_F(CacheCare, TheSizeIsWhatTheLimitIsFor) {
    const std::filesystem::path kernel = plant_kernel('a');
    plant_record();
    const nlohmann::json stats = run({"cache", "stats", "--json"}).json();
    const auto kernels = stats["bytes"].get<std::uint64_t>(), records = stats["record_bytes"].get<std::uint64_t>();
    EXPECT_EQ(kernels, std::filesystem::file_size(kernel));
    EXPECT_GT(records, 1024u);
    const std::uint64_t limit = 2 * (kernels + records);
    const std::string said = run({"cache", "stats"}, {{"SMLORA_CACHE_LIMIT", std::to_string(limit)}}).out;
    EXPECT_NE(said.find(" (50.00%)\n"), std::string::npos) << said;
    std::filesystem::remove(kernel);
    const std::string unlimited = run({"cache", "stats"}, {{"SMLORA_CACHE_LIMIT", "0"}}).out;
    EXPECT_NE(unlimited.find("KiB, no limit\n"), std::string::npos) << unlimited;
}

TEST_F(CacheCare, ExportFollowsNoLinkAndNeedsNoNameOfItsOwn) {
    plant_kernel('a');
    const std::string target = write("precious", "mine");
    const std::string archive = file("all.tar.gz");
    std::filesystem::create_symlink(target, archive + ".part");
    ASSERT_EQ(run({"export", archive}).exit_code, 0);
    EXPECT_EQ(contents(target), "mine");
    EXPECT_TRUE(std::filesystem::is_symlink(archive + ".part"));
    EXPECT_FALSE(std::filesystem::is_symlink(archive));
    // A link in the place of the archive is replaced.
    std::filesystem::create_symlink(target, file("link.tar.gz"));
    ASSERT_EQ(run({"export", file("link.tar.gz")}).exit_code, 0);
    EXPECT_EQ(contents(target), "mine");
    EXPECT_EQ(contents(file("link.tar.gz")), contents(archive));
    struct ::stat status {};
    ASSERT_EQ(::stat(archive.c_str(), &status), 0);
    const ::mode_t mask = ::umask(0);
    ::umask(mask);
    EXPECT_EQ(status.st_mode & 0777u, 0666u & ~mask);
}

}  // namespace
}  // namespace smlora::tool
