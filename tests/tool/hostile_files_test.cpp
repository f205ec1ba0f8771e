// Files that somebody made to fill the memory or to say something in the program's name.
#include "crafted_archive.hpp"
#include "tuning_commands.hpp"

#include "cache/layer.hpp"
#include "tuning/record.hpp"
#include "unit/cache/fixtures.hpp"
#include "util/json.hpp"
#include "util/printable.hpp"

#include <algorithm>
#include <functional>

namespace smlora::tool {
namespace {

constexpr const char* title = "\x1b]0;owned\x07";

class HostileFiles : public TuningCommands {
 protected:
    Outcome import(const std::function<void(CraftedArchive&)>& make) {
        {
            CraftedArchive crafted(file("bad.tar.gz"));
            make(crafted);
        }
        const Outcome outcome = run_in("target", {"import", file("bad.tar.gz")});
        EXPECT_EQ(outcome.exit_code, 1);
        EXPECT_FALSE(std::filesystem::exists(file("target") + "/v1")) << "nothing of it is stored";
        expect_lines(outcome);
        return outcome;
    }

    void expect_refused(const std::string& why, const std::function<void(CraftedArchive&)>& make) {
        EXPECT_EQ(import(make).err, "smlora-tune: archive " + file("bad.tar.gz") + ": " + why + "\n");
    }

    /// Lines that a terminal shows.
    static void expect_lines(const Outcome& outcome) {
        for (const std::string& text : {outcome.out, outcome.err}) {
            std::string rest = text;
            std::erase(rest, '\n');
            EXPECT_TRUE(util::is_printable(rest)) << util::printable(text, 4000);
        }
    }
};

const std::string kernel = "kernels/ab/ab" + std::string(30, '0');
const std::string record_path = "tuning/GPU/" + std::string(32, 'a') + ".json";

TEST_F(HostileFiles, AMemberThatUnpacksToFarMoreThanTheArchiveIsRefused) {
    const std::string zeros(32 << 20, '\0');
    expect_refused("it unpacks to more than 100 times its size", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{kernel, zeros}});
        crafted.add(kernel, zeros);
    });
    // Many that are small are as bad as one that is large.
    expect_refused("it unpacks to more than 100 times its size", [&](CraftedArchive& crafted) {
        const std::string part(1 << 20, '\0');
        std::vector<ArchiveMember> members;
        for (int i = 0; i < 40; ++i) {
            const std::string key = testing::sample_key(i);
            members.push_back({"kernels/" + key.substr(0, 2) + "/" + key, part});
        }
        crafted.add_manifest(members);
        for (const ArchiveMember& member : members) crafted.add(member.path, member.bytes);
    });
}

TEST_F(HostileFiles, AMemberIsNoLargerThanACacheTakes) {
    std::string noise((16 << 20) + 1, '\0');
    std::uint32_t state = 1;
    for (char& byte : noise) byte = static_cast<char>((state = state * 1664525U + 1013904223U) >> 24);
    expect_refused("\"" + record_path + "\" has more than 16777216 bytes", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{record_path, noise}});
        crafted.add(record_path, noise);
    });
    expect_refused("\"manifest.json\" has more than 16777216 bytes",
                   [&](CraftedArchive& crafted) { crafted.add("manifest.json", noise); });
}

TEST_F(HostileFiles, AManifestOfNumbersTakesNoMemory) {
    std::string numbers = R"({"format": 1, "files": [0)";
    while (numbers.size() < 8 << 20) numbers += ",0";
    expect_refused("its manifest is none of an archive of this format: manifest.json: expected a JSON object",
                   [&](CraftedArchive& crafted) { crafted.add("manifest.json", numbers + "]}"); });
}

TEST_F(HostileFiles, NamesInAnArchiveAreShownAndNotObeyed) {
    const std::string path = std::string("kernels/") + title + "\n";
    const std::string shown = R"("kernels/\x1b]0;owned\x07\n")";
    expect_refused("member " + shown + ": expected kernels/ab/KEY, tuning/GPU.jsonl or tuning/GPU/KEY.json",
                   [&](CraftedArchive& crafted) {
                       crafted.add_manifest({{path, "x"}});
                       crafted.add(path, "x");
                   });
    expect_refused("it begins with " + shown + ", not with its manifest",
                   [&](CraftedArchive& crafted) { crafted.add(path, "x"); });
    expect_refused(shown + " is missing", [&](CraftedArchive& crafted) { crafted.add_manifest({{path, "x"}}); });
    import([&](CraftedArchive& crafted) {
        crafted.add("manifest.json", R"({"format": 1, "files": [{"path": 3, "x": "\u009b31m"}]})");
});
}  // namespace

TEST_F(HostileFiles, TextOfAKernelIsShownAndNotObeyed) {
    const std::string key = testing::sample_key(1);
    cache::KernelEntry entry = testing::sample_entry(1);
    for (const char* field : {"kernel", "arch", "compiler"})
        entry.metadata[field] = std::string("x") + title + "\n\xc2\x9b";
    testing::write_file(cache::entry_file(cache(), key), cache::encode_for(key, entry));
    for (const std::vector<std::string>& command :
         std::vector<std::vector<std::string>>{{"cache", "list"},
                                               {"cache", "inspect", key},
                                               {"cache", "list", "--json"},
                                               {"cache", "inspect", key, "--json"}}) {
        const Outcome outcome = run(command);
        EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
        EXPECT_NE(outcome.out.find("]0;owned"), std::string::npos);
        expect_lines(outcome);
    }
}

TEST_F(HostileFiles, TextOfARecordIsShownAndNotObeyed) {
    const auto run_everything = [&] {
        std::string all;
        for (const std::vector<std::string>& command :
             std::vector<std::vector<std::string>>{{"cache", "verify"},
                                                   {"export", file("all.tar.gz")},
                                                   {"cache", "stats"},
                                                   with(explain, "--json"),
                                                   explain}) {
            const Outcome outcome = run(command);
            expect_lines(outcome);
            all += outcome.out + outcome.err;
        }
        return all;
    };
    const std::string because = std::string("because\n") + title;
    plant_record([&](tuning::Tuning& tuning) { tuning.trials[1].why = because; });
    const std::string with_reason = run_everything();
    EXPECT_NE(with_reason.find(R"(because\n\x1b]0;owned\x07)"), std::string::npos) << with_reason;

    // A name that cannot be printed is none.
    plant_record([&](tuning::Tuning& tuning) { tuning.environment.driver = title; });
    const std::string with_name = run_everything();
    EXPECT_NE(with_name.find(R"("driver": expected a line of text, got "\u001b]0;owned\u0007")"), std::string::npos)
        << with_name;
}

}  // namespace smlora::tool
}  // namespace smlora::tool
