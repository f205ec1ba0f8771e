// Records as text, what they hold for, and their names.
#include "tuning/record.hpp"

#include "cache/layer.hpp"
#include "sample_tunings.hpp"
#include "tuning/bucket.hpp"
#include "util/hash.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

namespace smlora::tuning {
namespace {

using namespace testing;

Record record_of(const std::string& text) {
    std::string why;
    const auto record = parse_record(text, why);
    EXPECT_TRUE(record.has_value()) << why;
    return record.value_or(Record{});
}

TEST(Record, SurvivesItsText) {
    Record record{sample_name(), {sample_tuning(), sample_tuning("dx", 0, false), condensed_tuning("yb")}};
    const Record read = record_of(record_text(record));
    EXPECT_EQ(read.name, record.name);
    ASSERT_EQ(read.tunings.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) expect_same(read.tunings[i], record.tunings[i]);
    EXPECT_TRUE(read.tunings[2].trials[1].timing.has_value());
    EXPECT_EQ(record_text(read), record_text(record));
}

TEST(Record, KeepsAnErrorBeyondAllMeasure) {
    Tuning tuning = sample_tuning();
    tuning.trials[3].error = 1e300;
    EXPECT_EQ(record_of(record_text({sample_name(), {tuning}})).tunings.at(0).trials[3].error, 1e300);
}

TEST(Record, IsTextForPeople) {
    const std::string text = record_text({sample_name(), {sample_tuning()}});
    EXPECT_NE(text.find("\n \"gpu\": \"NVIDIA H200\",\n"), std::string::npos) << text;
    EXPECT_NE(text.find("1234.567"), std::string::npos) << "microseconds: " << text;
    EXPECT_NE(text.find("\"reason\": \"25.0 % faster than the heuristic choice\""), std::string::npos) << text;
}

/// A changed document with the checksum that it then has.
std::string signed_text(nlohmann::ordered_json document) {
    document.erase("xxh128");
    document["xxh128"] = util::xxh128_hex(document.dump());
    return document.dump(1);
}

TEST(Record, EveryFieldThatIsMissingOrOfAnotherTypeIsFoundOut) {
    const auto sound =
        nlohmann::ordered_json::parse(record_text({sample_name(), {sample_tuning(), condensed_tuning()}}));
    int tried = 0;
    // Every value of the document in turn is taken out, and replaced by what cannot be right.
    const auto flat = sound.flatten();
    for (const auto& [path, value] : flat.items()) {
        if (path.find("/configuration/") != std::string::npos || path.find("/reason") != std::string::npos ||
            path.find("/choice/") != std::string::npos || path == "/xxh128") {
            continue;  // any names and numbers make a configuration; the reason is for people
        }

        const nlohmann::ordered_json::json_pointer pointer(path);
        const nlohmann::ordered_json wrong =
            value.is_string() ? nlohmann::ordered_json(17) : nlohmann::ordered_json("text");
        auto document = sound;
        document[pointer] = wrong;
        std::string why;
        EXPECT_FALSE(parse_record(signed_text(document), why).has_value()) << path;
        EXPECT_FALSE(why.empty());
        if (path.find("samples_us") != std::string::npos) continue;  // fewer samples are fine
        document = sound;
        document[pointer.parent_pointer()].erase(pointer.back());
        EXPECT_FALSE(parse_record(signed_text(document), why).has_value()) << path;
        ++tried;
    }
    EXPECT_GT(tried, 40);
}

TEST(Record, EveryFlippedBitAndEveryTruncationIsFoundOut) {
    const std::string sound = record_text({sample_name(), {sample_tuning(), condensed_tuning()}});
    for (std::size_t at = 0; at < sound.size(); ++at) {
        std::string text = sound;
        text[at] = static_cast<char>(text[at] ^ (1 << at % 7));
        std::string why;
        const std::optional<Record> read = parse_record(text, why);
        // White space for white space changes nothing.
        EXPECT_TRUE(!read || record_text(*read) == sound) << at;
        EXPECT_FALSE(at + 2 < sound.size() && parse_record(sound.substr(0, at), why)) << at;
    }
}

TEST(Record, ThatWasEditedSaysSo) {
    auto document = nlohmann::ordered_json::parse(record_text({sample_name(), {sample_tuning(), condensed_tuning()}}));
    document["bucket"] = 12;
    std::string why;
    EXPECT_FALSE(parse_record(document.dump(1), why).has_value());
    EXPECT_NE(why.find("it was damaged, or edited"), std::string::npos) << why;
    EXPECT_TRUE(parse_record(signed_text(document), why).has_value()) << why;
}

TEST(Record, ValuesThatMakeNoSenseAreFoundOut) {
    const auto sound =
        nlohmann::ordered_json::parse(record_text({sample_name(), {sample_tuning(), condensed_tuning()}}));
    const std::vector<std::pair<const char*, nlohmann::ordered_json>> changes{
        {"/format", 1},
        {"/bucket", 32},
        {"/bucket", -1},
        {"/tunings/0/seconds", -1},
        {"/tunings/0/choice", {{"family", "another"}}},
        {"/tunings/0/choice", to_json(sample_tuning().trials[3].candidate.configuration)},  // a refused one
        {"/tunings/0/candidates/0/verdict", "splendid"},
        {"/tunings/0/candidates/0/samples_us/0", 0},
        {"/tunings/0/candidates/0/samples_us/0", -3.5},
        {"/tunings/0/candidates/0/samples_us/0", 1e200},
        {"/tunings/0/seconds", 1e200},
        {"/tunings/0/slot", "forward\n"},
        {"/tunings/0/environment/compiler", "13.0.88\x1b[2J"},
        {"/tunings/0/date", std::string(1001, '1')},
        {"/tunings/0/candidates/1/configuration", {{"family", "f"}, {"TILE\u202e", 64}}},
        {"/tunings/0/candidates", std::vector<nlohmann::ordered_json>(4097, sound["tunings"][0]["candidates"][0])},
        {"/tunings", std::vector<nlohmann::ordered_json>(257, sound["tunings"][0])},
        {"/tunings/1/candidates/1/timing", "fast"},
        {"/tunings/1/candidates/1/timing/unit_us", 0},
        {"/tunings/1/candidates/1/timing/ratio", 0},
        {"/tunings/1/candidates/1/timing/deviation", -0.1},
        {"/tunings/1/candidates/1/timing/samples", -1},
        {"/tunings/0/candidates/1/configuration", {{"family", "f"}, {"TILE", "large"}}},
    };
    for (const auto& [path, value] : changes) {
        auto document = sound;
        document[nlohmann::ordered_json::json_pointer(path)] = value;
        std::string why;
        EXPECT_FALSE(parse_record(signed_text(document), why).has_value()) << path << " " << value;
    }
    for (const std::string text : {"", "[]", "{", "null", "17", "\xff\xfe"}) {
        std::string why;
        EXPECT_FALSE(parse_record(text, why).has_value()) << text;
    }
}

TEST(Record, WhatIsNestedDeeperThanAnyRecordIsRefusedInsteadOfExhaustingTheStack) {
    constexpr std::size_t depth = 1'000'000;
    for (const char* member : {"format", "gpu", "tunings"}) {
        std::string text = record_text({sample_name(), {sample_tuning()}});
        const std::size_t at = text.find(':', text.find(fmt::format("\"{}\"", member))) + 1;
        text.insert(at, std::string(depth, '[') + std::string(depth, ']') + ", \"rest\":");
        std::string why;
        EXPECT_FALSE(parse_record(text, why).has_value()) << member;
        EXPECT_LT(why.size(), 1000u);
    }
}

TEST(Record, KeepsWhatWasMeasuredElsewhereBesideItsOwn) {
    Record record{sample_name(), {}};
    record.put(sample_tuning("forward", 0));
    record.put(sample_tuning("dx", 1));
    Tuning other = sample_tuning("forward", 1);
    other.environment.compiler = "12.9.41";
    record.put(other);
    ASSERT_EQ(record.tunings.size(), 3u);
    EXPECT_EQ(record.find("forward", here())->choice, sample_tuning("forward", 0).choice);
    EXPECT_EQ(record.find("forward", other.environment)->choice, other.choice);
    // The same environment again: in its place.
    record.put(sample_tuning("forward", 1));
    EXPECT_EQ(record.tunings.size(), 3u);
    EXPECT_EQ(record.find("forward", here())->choice, sample_tuning("forward", 1).choice);
    // Of many environments the oldest go.
    for (int release = 1; release <= 9; ++release) {
        other.environment.compiler = "14." + std::to_string(release) + ".1";
        other.date = "2027-0" + std::to_string(release) + "-01T00:00:00Z";
        record.put(other);
    }
    EXPECT_EQ(record.tunings.size(), 4u + 1u);
    EXPECT_EQ(record.find("forward", here()), nullptr);
    EXPECT_NE(record.find("forward", other.environment), nullptr);
    EXPECT_NE(record.find("dx", here()), nullptr);
}

TEST(Environment, MismatchesAreNamed) {
    const auto changed = [](auto change) {
        Environment environment = here();
        change(environment);
        return mismatch(environment, here());
    };
    EXPECT_EQ(mismatch(here(), here()), "");
    EXPECT_EQ(changed([](auto& e) { e.gpu = "NVIDIA H100"; }), "GPU: recorded with NVIDIA H100, here NVIDIA H200");
    EXPECT_NE(changed([](auto& e) { e.arch = "sm_100a"; }), "");
    EXPECT_NE(changed([](auto& e) { e.multiprocessors = 114; }), "");
    EXPECT_NE(changed([](auto& e) { e.templates[3] = 'x'; }), "");
    EXPECT_NE(changed([](auto& e) { e.compiler = "13.1.88"; }), "");
    EXPECT_NE(changed([](auto& e) { e.compiler = "12.0.88"; }), "");
    EXPECT_NE(changed([](auto& e) { e.driver = "12.8"; }), "");
    EXPECT_EQ(changed([](auto& e) { e.compiler = "13.0.48"; }), "") << "a build changes no choice";
    EXPECT_EQ(changed([](auto& e) { e.driver = "13.2"; }), "") << "the driver compiles nothing";
    EXPECT_EQ(changed([](auto& e) { e.driver = ""; }), "") << "not known";
    EXPECT_EQ(changed([](auto& e) { e.compiler = ""; }), "");
}

TEST(Bucket, NeighboursComeNearestFirst) {
    EXPECT_EQ(tuning::bucket_of(0), 0);
    EXPECT_EQ(tuning::bucket_of(2048), 11);
    EXPECT_EQ(tuning::bucket_of(2800), 11);
    EXPECT_EQ(tuning::bucket_of(2900), 12);
    EXPECT_EQ(tokens_of(11), 2048);
    const std::vector<std::uint8_t> near = neighbours(3);
    EXPECT_EQ(std::vector<std::uint8_t>(near.begin(), near.begin() + 7),
              (std::vector<std::uint8_t>{2, 4, 1, 5, 0, 6, 7}));
    EXPECT_EQ(near.size(), 31u);
}

TEST(RecordFolder, HasNothingThatLeavesIt) {
    EXPECT_EQ(cache::record_folder("NVIDIA H200"), "NVIDIA_H200");
    const std::vector<std::string> names{"../../etc", "..", ".", "", "a/b", "x\ny", std::string(300, 'g')};
    for (const std::string& name : names) {
        EXPECT_TRUE(cache::is_record_folder(cache::record_folder(name))) << name;
    }
    for (const char* text : {"..", ".hidden", "", "a/b", "a b"}) EXPECT_FALSE(cache::is_record_folder(text)) << text;
}

}  // namespace
}  // namespace smlora::tuning
