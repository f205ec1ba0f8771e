// Bundles: as text, and in the layers of a cache.
#include "tuning/bundle.hpp"

#include "fault/fault_file_system.hpp"
#include "sample_tunings.hpp"
#include "tuning/record_store.hpp"
#include "unit/cache/fixtures.hpp"

#include <gtest/gtest.h>

#include <map>

namespace smlora::tuning {
namespace {

using namespace testing;
using smlora::testing::write_file;

const std::string gpu = "NVIDIA H200";

std::vector<Record> sample_records() {
    Tuning other_driver = condensed_tuning("forward", 0);
    other_driver.environment.driver = "12.9";
    Tuning other_work = condensed_tuning("yb", 1);
    other_work.environment.templates = "another";
    other_work.workload = {3000, "zipf"};
    Tuning unchosen = condensed_tuning("xa");
    for (Trial& trial : unchosen.trials) {
        trial.verdict = Verdict::refused;
        trial.timing.reset();
    }
    unchosen.choice.reset();
    return {{sample_name(12), {condensed_tuning("dx", 1), condensed_tuning("forward", 1), other_driver}},
            {sample_name(11), {other_work, unchosen}}};
}

std::string sample_text() { return bundle_text(gpu, sample_records()); }

Bundle bundle_of(const std::string& text) {
    std::string why;
    std::optional<Bundle> bundle = Bundle::parse(text, why);
    EXPECT_TRUE(bundle.has_value()) << why;
    return bundle ? std::move(*bundle) : Bundle();
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
        lines.push_back(text.substr(begin, text.find('\n', begin) - begin));
    }
    return lines;
}

/// With the last line that they then need.
std::string text_of(std::vector<std::string> lines) {
    lines.pop_back();
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    return text + fmt::format("{{\"lines\":{},\"xxh128\":\"{}\"}}\n", lines.size(), util::xxh128_hex(text));
}

/// As a bundle has it.
Tuning abridged(Tuning tuning) {
    tuning.date = tuning.date.substr(0, 10);
    tuning.seconds = 1.3;
    tuning.seed = 0;
    for (Trial& trial : tuning.trials) {
        trial.candidate.predicted_seconds = trial.error = 0;
        trial.registers = trial.spill_bytes = 0;
    }
    return tuning;
}

TEST(Bundle, HasWhatAChoiceIsMadeOf) {
    const Bundle bundle = bundle_of(sample_text());
    EXPECT_EQ(bundle.gpu(), gpu);
    EXPECT_EQ(bundle.tunings(), 5u);
    std::size_t found = 0;
    for (const Record& record : sample_records()) {
        for (const Tuning& tuning : record.tunings) {
            const auto read = bundle.find(record.name.problem, record.name.bucket, tuning.slot, tuning.environment);
            ASSERT_TRUE(read.has_value()) << tuning.slot;
            expect_same(*read, abridged(tuning));
            EXPECT_EQ(judge(read->trials).reason, judge(tuning.trials).reason);
            ++found;
        }
    }
    EXPECT_EQ(found, bundle.tunings());
    EXPECT_FALSE(bundle.find(sample_name().problem, 12, "gradients", here()).has_value());
    EXPECT_FALSE(bundle.find(sample_name().problem, 13, "dx", here()).has_value());
    EXPECT_FALSE(bundle.find("another problem", 12, "dx", here()).has_value());
    EXPECT_EQ(bundle.environments(sample_name().problem, 12, "forward").size(), 2u);
}

TEST(Bundle, IsTheSameOfTheSameTuningsInAnyOrder) {
    const std::string text = sample_text();
    std::vector<Record> records = sample_records();
    std::reverse(records.begin(), records.end());
    for (Record& record : records) std::reverse(record.tunings.begin(), record.tunings.end());
    EXPECT_EQ(bundle_text(gpu, records), text);
    EXPECT_EQ(bundle_text(gpu, bundle_of(text).records()), text);
    EXPECT_EQ(bundle_of(bundle_text(gpu, {})).tunings(), 0u);
}

TEST(Bundle, KeepsRatiosWithinItsDigits) {
    std::vector<Record> records{{sample_name(12), {condensed_tuning("dx", 1)}}};
    std::vector<Trial>& trials = records[0].tunings[0].trials;
    // The first trial is what the ratios are to.
    trials[1].timing->ratio = 1e9 * trials[0].timing->ratio;
    trials[1].timing->deviation = 1e9;
    trials[2].timing->ratio = 1e-9 * trials[0].timing->ratio;
    const Tuning read = bundle_of(bundle_text(gpu, records)).records().at(0).tunings.at(0);
    EXPECT_GT(read.trials[1].timing->ratio, 20'000);
    EXPECT_GT(read.trials[2].timing->ratio, 0);
}

TEST(Bundle, LeavesOutWhatIsNotComplete) {
    std::vector<Record> records = sample_records();
    records[0].tunings.push_back(sample_tuning("gradients", 1, false));
    EXPECT_EQ(bundle_text(gpu, records), sample_text());
    records[0].tunings.back().complete = true;
    EXPECT_EQ(bundle_of(bundle_text(gpu, records)).tunings(), 6u) << "samples become what they come to";
    records[0].tunings.back().trials[2].verdict = Verdict::pending;
    EXPECT_EQ(bundle_text(gpu, records), sample_text());
}

TEST(Bundle, AFurtherTuningChangesNoLineOfTheOthers) {
    std::vector<Record> records = sample_records();
    Tuning more = condensed_tuning("gradients");
    more.trials[1].candidate.name = "a new tile";
    more.trials[1].candidate.configuration.family = "another";
    more.choice = more.trials[1].candidate.configuration;
    records[0].tunings.push_back(more);
    const std::vector<std::string> after = lines_of(bundle_text(gpu, records));
    std::vector<std::string> before = lines_of(sample_text());
    before.pop_back();
    for (const std::string& line : before) EXPECT_EQ(std::count(after.begin(), after.end(), line), 1) << line;
    EXPECT_EQ(after.size(), before.size() + 3) << "its own line, a candidate's, and the last one";
}

TEST(Bundle, EveryFlippedBitAndEveryTruncationIsFoundOut) {
    const std::string sound = sample_text();
    for (std::size_t at = 0; at < sound.size(); ++at) {
        std::string text = sound;
        text[at] = static_cast<char>(text[at] ^ (1 << at % 8));
        std::string why;
        EXPECT_FALSE(Bundle::parse(text, why).has_value()) << at;
        EXPECT_TRUE(why.starts_with("line ")) << why;
        EXPECT_FALSE(Bundle::parse(sound.substr(0, at), why).has_value()) << at;
    }
}

TEST(Bundle, EveryLineThatIsMissingOrThereTwiceIsFoundOut) {
    const std::vector<std::string> sound = lines_of(sample_text());
    EXPECT_EQ(text_of(sound), sample_text());
    const std::size_t tunings_begin = sound.size() - 1 - 5;
    for (std::size_t at = 0; at + 1 < sound.size(); ++at) {
        std::string why;
        std::vector<std::string> lines = sound;
        lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(at), sound[at]);
        EXPECT_FALSE(Bundle::parse(text_of(lines), why).has_value()) << sound[at];
        lines = sound;
        lines.erase(lines.begin() + static_cast<std::ptrdiff_t>(at));
        // A bundle without one of its tunings is a bundle.
        EXPECT_EQ(Bundle::parse(text_of(lines), why).has_value(), at >= tunings_begin) << sound[at];
    }
}

TEST(Bundle, WhatMakesNoSenseIsFoundOutWithItsLine) {
    const std::vector<std::string> sound = lines_of(sample_text());
    const auto line_with = [&](const std::string& part) {
        const auto found = std::find_if(sound.begin(), sound.end(),
                                        [&](const std::string& line) { return line.find(part) != std::string::npos; });
        return static_cast<std::size_t>(found - sound.begin());
    };
    const auto expect_refused = [&](const std::string& from, const std::string& to, const std::string& why_part) {
        std::vector<std::string> lines = sound;
        const std::size_t at = line_with(from);
        ASSERT_LT(at, lines.size()) << from;
        lines[at].replace(lines[at].find(from), from.size(), to);
        std::string why;
        EXPECT_FALSE(Bundle::parse(text_of(lines), why).has_value()) << to;
        EXPECT_TRUE(why.starts_with(fmt::format("line {}: ", at + 1))) << why;
        EXPECT_NE(why.find(why_part), std::string::npos) << why;
    };
    expect_refused("\"format\":1", "\"format\":2", "format 2, expected 1");
    expect_refused("\"gpu\":", "\"card\":", "\"gpu\" is missing");
    expect_refused("\"environment\":1,", "\"environment\":7,", "numbered in their order");
    expect_refused("\"multiprocessors\":132", "\"multiprocessors\":-1", "out of range");
    expect_refused("{\"candidate\"", "{\"kandidat\"", "cannot begin with \"kandidat\"");
    expect_refused("\"shared_bytes\":{", "\"shared_bytes\":{\"k\":\"x\",", "\"k\" has the wrong type");
    expect_refused("\"shared_bytes\":{", "\"shared_bytes\":{\"\\u001b[31m\":1,",
                   "\"\\u001b[31m\" cannot stand for a candidate");
    expect_refused("\"bucket\":12", "\"bucket\":32", "out of range");
    expect_refused("\"slot\":\"dx\"", "\"slot\":\"d\\u009bx\"", "\"slot\": expected a line of text, got \"d\\u009bx\"");
    expect_refused("\"us\":", "\"us\":1e200,\"was\":", "expected a number from 0 to 10000000000000, got 1e+200");
    expect_refused("\"slot\":\"dx\"", "\"slot\":3", "wrong type");
    expect_refused("\"slot\":\"dx\"", "\"slot\":\"dx\",\"environment\":9", "there is no environment 9");
    expect_refused("\"slot\":\"dx\"", "\"slot\":\"dx\",\"environment\":4294967296",
                   "there is no environment 4294967296");
    expect_refused("\"us\":", "\"us\":-", "from 0 to");
    expect_refused("\"choice\":\"", "\"choice\":\"-", "stands for no candidate");
    expect_refused("\"candidates\":[[\"", "\"candidates\":[[\"-", "stands for no candidate");
    expect_refused("\"candidates\":[[", "\"candidates\":[3,[", "tells of no candidate");
    expect_refused("\"slow\"", "\"quick\"", "tells of no candidate");
    expect_refused(",100000,", ",-1,", "tells of no candidate");
    std::string why;
    for (const std::string text : {"", "\n", "[]\n", "{}\n", "null\n", "\xff\xfe\n"}) {
        EXPECT_FALSE(Bundle::parse(text, why).has_value()) << text;
    }
    EXPECT_FALSE(Bundle::parse(sample_text() + sample_text(), why).has_value());
    EXPECT_FALSE(Bundle::parse(std::string(1'000'000, '[') + "\n", why).has_value());
    EXPECT_LT(why.size(), 1000u);
}

class Bundles : public smlora::testing::CacheTest {
 protected:
    [[nodiscard]] std::filesystem::path file(const std::string& layer) const {
        return cache::bundle_file(scratch.path() / layer, cache::record_folder(gpu));
    }
    [[nodiscard]] cache::CacheOptions layered() {
        cache::CacheOptions chosen = options();
        chosen.layers = {scratch.path() / "layer"};
        chosen.shipped = scratch.path() / "shipped";
        chosen.files = &files;
        return chosen;
    }
    void plant(const std::string& layer, int best) {
        write_file(file(layer), bundle_text(gpu, {{sample_name(), {condensed_tuning("forward", best)}}}));
        // Old enough to be remembered.
        smlora::testing::set_age(file(layer), std::chrono::hours(1));
        std::filesystem::permissions(scratch.path() / layer, std::filesystem::perms::owner_all);
    }
    static std::optional<Configuration> choice(int best) { return condensed_tuning("forward", best).choice; }

    smlora::testing::FaultFileSystem files;
};

TEST_F(Bundles, ServeLayerByLayerBehindTheRecordsOfTheirLayer) {
    plant("shipped", 0);
    cache::Cache cache(layered(), log.logger);
    RecordStore store(cache, log.logger);
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, choice(0));
    EXPECT_FALSE(store.find(sample_name(), "dx", here()).has_value());
    plant("layer", 1);
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, choice(1));
    // A part of one's own does not go before what is complete below it, a complete one does.
    ASSERT_TRUE(store.save(sample_name(), sample_tuning("forward", 0, false)));
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, choice(1));
    ASSERT_TRUE(store.save(sample_name(), condensed_tuning("forward", 0)));
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, choice(0));
    plant("cache", 1);
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, choice(0)) << "the record goes before the bundle";
    EXPECT_TRUE(log.warnings().empty());
}

TEST_F(Bundles, OfAnotherEnvironmentOrGpuAreAMiss) {
    plant("shipped", 0);
    cache::Cache cache(layered(), log.logger);
    RecordStore store(cache, log.logger);
    Environment elsewhere = here();
    elsewhere.templates = "another";
    EXPECT_FALSE(store.find(sample_name(), "forward", elsewhere).has_value());
    EXPECT_NE(store.why_unfit(sample_name(), "forward", elsewhere).find("templates"), std::string::npos);
    EXPECT_EQ(store.why_unfit(sample_name(), "forward", here()), "");
    EXPECT_EQ(store.why_unfit(sample_name(), "dx", elsewhere), "");
    // Its folder is the same.
    RecordName other = sample_name();
    other.gpu = "NVIDIA_H200";
    Environment there = here();
    there.gpu = other.gpu;
    EXPECT_EQ(cache::record_folder(other.gpu), cache::record_folder(gpu));
    EXPECT_FALSE(store.find(other, "forward", there).has_value());
}

TEST_F(Bundles, AreReadOnce) {
    plant("shipped", 0);
    cache::Cache cache(layered(), log.logger);
    RecordStore store(cache, log.logger);
    std::map<smlora::testing::Call, int> calls;
    files.set_fault([&](const smlora::testing::CallRecord& record) {
        ++calls[record.call];
        return 0;
    });
    EXPECT_TRUE(store.find(sample_name(), "forward", here()).has_value());
    EXPECT_EQ(calls[smlora::testing::Call::read], 1);
    for (int turn = 0; turn < 3; ++turn) EXPECT_TRUE(store.find(sample_name(), "forward", here()).has_value());
    EXPECT_EQ(calls[smlora::testing::Call::read], 1);
    calls.clear();
    const auto near = store.find_near(sample_name(14), {sample_name().problem}, "forward", here(), sample_space());
    ASSERT_TRUE(near.has_value());
    EXPECT_EQ(near->name, sample_name());
    EXPECT_EQ(calls[smlora::testing::Call::read], 0);
    EXPECT_LT(calls[smlora::testing::Call::status] + calls[smlora::testing::Call::list], 20) << "not one a bucket";
    // Another one in its place is read.
    plant("shipped", 1);
    EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, choice(1));
}

TEST_F(Bundles, ThatAreDamagedAreLeftOutWithOneWarning) {
    plant("layer", 1);
    plant("shipped", 0);
    const std::string sound = smlora::testing::contents_of(file("layer"));
    write_file(file("layer"), sound.substr(0, sound.size() / 2));
    smlora::testing::set_age(file("layer"), std::chrono::hours(1));
    cache::Cache cache(layered(), log.logger);
    RecordStore store(cache, log.logger);
    for (int turn = 0; turn < 3; ++turn) {
        EXPECT_EQ(store.find(sample_name(), "forward", here())->choice, choice(0)) << "the next layer's serves";
    }
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find(file("layer").string()), std::string::npos) << log.warnings()[0];
    EXPECT_NE(log.warnings()[0].find(": line "), std::string::npos) << log.warnings()[0];
    EXPECT_TRUE(std::filesystem::exists(file("layer")));
}

TEST_F(Bundles, ThatOthersMayWriteAreNotUsed) {
    plant("shipped", 0);
    cache::Cache cache(layered(), log.logger);
    RecordStore store(cache, log.logger);
    EXPECT_TRUE(store.find(sample_name(), "forward", here()).has_value());
    std::filesystem::permissions(file("shipped"), std::filesystem::perms::all);
    EXPECT_FALSE(store.find(sample_name(), "forward", here()).has_value()) << "nor what it said before";
    ASSERT_EQ(log.warnings().size(), 1u);
    EXPECT_NE(log.warnings()[0].find("permissions"), std::string::npos);
    std::filesystem::permissions(file("shipped"), std::filesystem::perms::owner_read);
    EXPECT_TRUE(store.find(sample_name(), "forward", here()).has_value());
}

TEST_F(Bundles, AFileSystemThatFailsCostsAMissAndNoMore) {
    plant("shipped", 0);
    cache::Cache cache(layered(), log.logger);
    for (int call = 0; call < 12; ++call) {
        RecordStore store(cache, log.logger);
        files.set_fault(smlora::testing::fail_call(call, -EIO));
        const auto found = store.find(sample_name(), "forward", here());
        EXPECT_TRUE(!found || found->choice == choice(0));
        files.set_fault({});
        ASSERT_TRUE(store.find(sample_name(), "forward", here()).has_value()) << "it is there again: " << call;
    }
}

TEST_F(Bundles, AreClearedFromTheWritableLayerAlone) {
    plant("cache", 0);
    plant("shipped", 0);
    cache::Cache cache(layered(), log.logger);
    EXPECT_EQ(cache.list_records().size(), 2u);
    EXPECT_EQ(cache.clear_records(), 1u);
    EXPECT_FALSE(std::filesystem::exists(file("cache")));
    EXPECT_TRUE(std::filesystem::exists(file("shipped")));
}

}  // namespace
}  // namespace smlora::tuning
