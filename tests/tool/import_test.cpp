// import of archives that are not what they say.
#include "crafted_archive.hpp"
#include "tuning_commands.hpp"

#include "smlora_tune/archive.hpp"

#include "tuning/record.hpp"

#include <filesystem>
#include <functional>
#include <utility>

namespace smlora::tool {
namespace {

TEST_F(TuningCommands, ImportRefusesWhatIsNotWhatItSays) {
    plant_record();
    ASSERT_EQ(run({"export", file("sound.tar.gz"), "--only", "records"}).exit_code, 0);
    const std::vector<ArchiveMember> sound = read_archive(file("sound.tar.gz"));
    ASSERT_EQ(sound.size(), 1u);
    const ArchiveMember record = sound[0];

    const auto expect_refused = [&](const std::string& part, const std::function<void(CraftedArchive&)>& make) {
        {
            CraftedArchive crafted(file("bad.tar.gz"));
            make(crafted);
        }
        const Outcome outcome = run_in("target", {"import", file("bad.tar.gz")});
        EXPECT_EQ(outcome.exit_code, 1) << part;
        EXPECT_TRUE(outcome.err.starts_with("smlora-tune: archive " + file("bad.tar.gz") + ": ")) << outcome.err;
        EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
        EXPECT_FALSE(std::filesystem::exists(file("target") + "/v1")) << "nothing of it is stored: " << part;
    };
    // Paths that lead elsewhere.
    for (const std::string& path : std::vector<std::string>{
             "../../evil", "/etc/evil", "kernels/../../../evil", "tuning/../evil/" + std::string(32, 'a') + ".json",
             "tuning/..", "tuning/../evil.jsonl", "tuning/..jsonl", "tuning/.jsonl",
             "kernels/ab/" + std::string(32, 'c'), "tuning/GPU/short.json", "evil"}) {
        expect_refused("member \"" + path + "\": expected kernels/ab/KEY, tuning/GPU.jsonl or",
                       [&](CraftedArchive& crafted) {
                           crafted.add_manifest({{path, "x"}});
                           crafted.add(path, "x");
                       });
    }
    expect_refused("no plain file", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record});
        crafted.add(record.path, "", AE_IFLNK);
    });
    // Bytes that are not those of the manifest.
    expect_refused("not what its manifest says", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record});
        std::string changed = record.bytes;
        changed[changed.size() / 2] ^= 1;
        crafted.add(record.path, changed);
    });
    expect_refused("is not in its manifest, or twice", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record});
        crafted.add(record.path, record.bytes);
        crafted.add(record.path, record.bytes);
    });
    expect_refused("is missing", [&](CraftedArchive& crafted) { crafted.add_manifest({record}); });
    expect_refused("not with its manifest", [&](CraftedArchive& crafted) { crafted.add(record.path, record.bytes); });
    for (const auto& [manifest, part] : std::vector<std::pair<std::string, std::string>>{
             {"{}", "\"format\": expected 1, got null"},
             {"[1]", "expected a JSON object"},
             {"manifest", "expected a JSON object"},
             {R"({"format": "x", "files": []})", "\"format\": expected 1, got \"x\""},
             {R"({"format": 2, "files": []})", "\"format\": expected 1, got 2"},
             {R"({"format": 1, "files": {}})", "\"files\": expected an array, got {}"},
             {R"({"format": 1, "files": [3]})", "\"files\": expected {\"path\", \"bytes\", \"xxh128\"}, got 3"},
             {R"({"format": 1, "files": [{"path": 3}]})",
              "\"files\": expected {\"path\", \"bytes\", \"xxh128\"}, got {\"path\":3}"},
         }) {
        expect_refused("its manifest is none of an archive of this format: manifest.json: " + part,
                       [&](CraftedArchive& crafted) { crafted.add("manifest.json", manifest); });
    }
    expect_refused("is not what its manifest says", [&](CraftedArchive& crafted) {
        crafted.add("manifest.json", R"({"format": 1, "files": [{"path": ")" + record.path + R"(", "bytes": "x"}]})");
        crafted.add(record.path, record.bytes);
    });
    // Content that is none, with a manifest that agrees; a sound member before it is not stored either.
    const std::string kernel_path = "kernels/ab/ab" + std::string(30, '0');
    expect_refused("only 5 bytes", [&](CraftedArchive& crafted) {
        crafted.add_manifest({record, {kernel_path, "cubin"}});
        crafted.add(record.path, record.bytes);
        crafted.add(kernel_path, "cubin");
    });
    const std::string other_record = "tuning/NVIDIA_H200/" + std::string(32, 'b') + ".json";
    const std::string foreign = tuning::record_text({{"NVIDIA H200", "E8", 6}, {}});
    expect_refused("the record of another problem", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{other_record, foreign}});
        crafted.add(other_record, foreign);
    });
    expect_refused("the bundle of another GPU: NVIDIA H200", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{"tuning/NVIDIA_H100.jsonl", record.bytes}});
        crafted.add("tuning/NVIDIA_H100.jsonl", record.bytes);
    });
    expect_refused("line 1: ", [&](CraftedArchive& crafted) {
        crafted.add_manifest({{record.path, foreign}});
        crafted.add(record.path, foreign);
    });
    // No archive at all, and one that was cut short.
    for (const std::string text : {"not an archive", ""}) {
        const Outcome outcome = run_in("target", {"import", write("text.tar.gz", text)});
        EXPECT_EQ(outcome.exit_code, 1);
        EXPECT_EQ(outcome.err, "smlora-tune: archive " + file("text.tar.gz") +
                                   ": it is no archive of smlora, which is a gzipped tar that begins with "
                                   "manifest.json\n");
    }
    std::filesystem::resize_file(file("sound.tar.gz"), std::filesystem::file_size(file("sound.tar.gz")) / 2);
    EXPECT_EQ(run_in("target", {"import", file("sound.tar.gz")}).exit_code, 1);
    EXPECT_EQ(run_in("target", {"import", file("nowhere.tar.gz")}).exit_code, 1);
}

}  // namespace
}  // namespace smlora::tool
