// export and import of archives that are sound.
#include "tuning_commands.hpp"

#include "smlora_tune/archive.hpp"

#include "cache/layer.hpp"
#include "tuning/choice.hpp"
#include "tuning/record_store.hpp"

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>

namespace smlora::tool {
namespace {

TEST_F(TuningCommands, ArchivesCarryKernelsAndRecordsToAnotherCache) {
    // As a measurement leaves it.
    plant_record([](tuning::Tuning& tuning) {
        tuning.date = "2026-11-23";
        tuning::condense(tuning.trials);
    });
    const bool compiles = run({"info", "--json"}).json()["nvrtc"]["found"].get<bool>();
    ASSERT_EQ(run(explain).exit_code, 0);
    const nlohmann::json exported = run({"export", file("all.tar.gz"), "--json"}).json();
    EXPECT_EQ(exported["tunings"], 1);
    EXPECT_EQ(exported["kernels"].get<int>() > 0, compiles);
    // The same cache gives the same file.
    ASSERT_EQ(run({"export", file("again.tar.gz")}).exit_code, 0);
    EXPECT_EQ(contents(file("all.tar.gz")), contents(file("again.tar.gz")));

    const nlohmann::json imported = run_in("other", {"import", file("all.tar.gz"), "--json"}).json();
    EXPECT_EQ(imported["kernels"], exported["kernels"]);
    EXPECT_EQ(imported["kept_kernels"], 0);
    EXPECT_EQ(imported["tunings"], 1);
    EXPECT_EQ(imported["kept"], 0);
    EXPECT_EQ(run_in("other", {"cache", "verify"}).exit_code, 0);
    EXPECT_EQ(run_in("other", {"cache", "stats", "--json"}).json()["records"], 1);
    EXPECT_EQ(run_in("other", with(explain, "--json")).out, run(with(explain, "--json")).out);
    // Again: what is here stays.
    const nlohmann::json again = run_in("other", {"import", file("all.tar.gz"), "--json"}).json();
    EXPECT_EQ(again["kernels"], 0);
    EXPECT_EQ(again["kept_kernels"], exported["kernels"]);
    EXPECT_EQ(again["tunings"], 0);
    EXPECT_EQ(again["kept"], 1);
    EXPECT_EQ(run_in("other", {"import", file("all.tar.gz")}).out, "0 kernels and 0 tunings imported, " +
                                                                       exported["kernels"].dump() +
                                                                       " kernels and 1 tuning were here already\n");
    // One kind only.
    EXPECT_EQ(run_in("third", {"import", file("all.tar.gz"), "--only", "records", "--json"}).json()["kernels"], 0);
    EXPECT_EQ(run({"export", file("k.tar.gz"), "--only", "kernels", "--json"}).json()["tunings"], 0);
}

TEST_F(TuningCommands, ExportTakesTheUpperTuningUnlessOnlyALowerOneIsComplete) {
    const std::string whole = "2026-11-23T00:00:00Z";
    const std::string part = "2026-11-24T00:00:00Z";
    const std::string further = "2026-11-25T00:00:00Z";
    int made = 0;
    for (const auto& [dates, exported] :
         std::vector<std::pair<std::vector<std::string>, std::string>>{{{whole, part}, whole},
                                                                       {{part, whole}, whole},
                                                                       {{part, further}, further},
                                                                       {{whole, part, further}, whole}}) {
        std::string layers;
        for (const std::string& date : dates) {
            plant_record([&](tuning::Tuning& tuning) {
                tuning.date = date;
                tuning.complete = date == whole;
            });
            const std::string layer = file("layer" + std::to_string(made++));
            std::filesystem::rename(cache(), layer);
            layers.insert(0, layer + ":");  // above those before
        }
        layers.pop_back();
        ASSERT_EQ(run({"export", file("all.tar.gz")}, {{"SMLORA_CACHE_LAYERS", layers}}).exit_code, 0);
        const std::vector<ArchiveMember> members = read_archive(file("all.tar.gz"));
        ASSERT_EQ(members.size(), 1u) << layers;
        // What is complete is in a bundle, and what is not in a record.
        EXPECT_EQ(members[0].path.ends_with(".jsonl"), exported == whole) << members[0].path;
        cache::RecordText stored;
        stored.folder = "NVIDIA_H200";
        if (exported != whole) stored.key = members[0].path.substr(std::string("tuning/NVIDIA_H200/").size(), 32);
        stored.text = members[0].bytes;
        std::string why;
        const auto records = tuning::records_in(stored, why);
        ASSERT_TRUE(records.has_value()) << why;
        ASSERT_EQ(records->size(), 1u);
        ASSERT_EQ(records->front().tunings.size(), 1u) << layers;
        EXPECT_EQ(records->front().tunings[0].date.substr(0, 10), exported.substr(0, 10)) << layers;
    }
}

TEST_F(TuningCommands, AnEmptyCacheMakesAnArchiveWithNothing) {
    EXPECT_EQ(run({"export", file("none.tar.gz")}).exit_code, 0);
    EXPECT_EQ(run_in("other", {"import", file("none.tar.gz")}).out,
              "0 kernels and 0 tunings imported, 0 kernels and 0 tunings were here already\n");
}

TEST_F(TuningCommands, JsonTellsOfAFileWhoseNameIsNotUtf8) {
    const std::string name = file("\xff.tar.gz");
    const Outcome outcome = run({"export", name, "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_TRUE(std::filesystem::exists(name));
    EXPECT_EQ(outcome.json()["file"], file("\ufffd.tar.gz"));
}

TEST_F(TuningCommands, ExportSaysWhichKernelsAndRecordsItLeavesOut) {
    plant_record();
    const std::string kernel = file("cache") + "/v1/kernels/ab/ab" + std::string(30, '0');
    const std::string record = file("cache") + "/v1/tuning/NVIDIA_H200/" + std::string(32, 'b') + ".json";
    std::filesystem::create_directories(std::filesystem::path(kernel).parent_path());
    for (const std::string& bad : {kernel, record}) std::ofstream(bad) << "cubin";
    const Outcome outcome = run({"export", file("rest.tar.gz"), "--json"});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.json()["kernels"], 0);
    EXPECT_EQ(outcome.json()["tunings"], 1);
    for (const std::string& bad : {kernel, record}) {
        EXPECT_NE(outcome.err.find("warning: " + bad + " is left out: "), std::string::npos) << outcome.err;
    }
    EXPECT_EQ(run({"export", file("records.tar.gz"), "--only", "records"}).err.find(kernel), std::string::npos);
}

/// For its lifetime no file of this process and of those that it starts grows beyond `bytes`.
class FullDisk {
 public:
    explicit FullDisk(::rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        const ::rlimit limit{bytes, before_.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~FullDisk() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        static_cast<void>(std::signal(SIGXFSZ, handler_));
    }
    FullDisk(const FullDisk&) = delete;
    FullDisk& operator=(const FullDisk&) = delete;

 private:
    void (*handler_)(int);
    ::rlimit before_{};
};

TEST_F(TuningCommands, ExportThatCannotWriteLeavesNothingBehind) {
    plant_record();
    const std::filesystem::path folder = file("folder");
    std::filesystem::create_directories(folder / "target");
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    const auto expect_refused = [&](const std::string& target, const std::string& part) {
        const Outcome outcome = run({"export", target});
        EXPECT_EQ(outcome.exit_code, 1) << target;
        EXPECT_NE(outcome.err.find("archive " + target + ": " + part), std::string::npos) << outcome.err;
    };
    for (const char* name : {"target", "pipe"}) {
        expect_refused((folder / name).string(), "expected a new file or a plain one, but it is a folder or a device");
    }
    {
        const FullDisk disk(1024);
        expect_refused((folder / "full.tar.gz").string(), "File too large");
    }
    std::set<std::string> left;
    for (const auto& item : std::filesystem::recursive_directory_iterator(folder)) {
        left.insert(item.path().filename().string());
    }
    EXPECT_EQ(left, (std::set<std::string>{"pipe", "target"}));
    EXPECT_TRUE(std::filesystem::is_fifo(folder / "pipe"));
}

TEST_F(TuningCommands, ImportIntoACacheThatTakesNothingFails) {
    plant_record();
    ASSERT_EQ(run({"export", file("sound.tar.gz")}).exit_code, 0);
    const Outcome outcome = run({"import", file("sound.tar.gz"), "--cache-dir", "/proc/smlora"});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, "smlora-tune: cache /proc/smlora: cannot be written: No such file or directory\n");
    // What is there in a layer below needs no writing.
    const Outcome there = run_program({"import", file("sound.tar.gz"), "--cache-dir", "/proc/smlora"},
                                      {{"SMLORA_CACHE_LAYERS", cache().string()}, {"SMLORA_SHIPPED_CACHE", "0"}});
    EXPECT_EQ(there.exit_code, 0) << there.err;
    EXPECT_EQ(there.out, "0 kernels and 0 tunings imported, 0 kernels and 1 tuning were here already\n");
}

}  // namespace
}  // namespace smlora::tool
