// The JSON texts have the members that smlora.h names.
#include "capi/json.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace {

using namespace smlora;
using nlohmann::json;

CacheEntryInfo entry() {
    CacheEntryInfo info;
    info.key = "00112233445566778899aabbccddeeff";
    info.file = "/cache/v1/kernels/00/00112233445566778899aabbccddeeff";
    info.kernel = "combine E=4";
    info.arch = "sm_90a";
    info.compiler = "NVRTC 13.0.88";
    info.registers = 64;
    info.spill_bytes = 8;
    info.shared_bytes = 1024;
    info.compile_seconds = 0.25;
    info.file_bytes = 4096;
    info.metadata = R"({"symbol": "smlora_combine"})";
    return info;
}

const json entry_json = {{"key", "00112233445566778899aabbccddeeff"},
                         {"file", "/cache/v1/kernels/00/00112233445566778899aabbccddeeff"},
                         {"kernel", "combine E=4"},
                         {"arch", "sm_90a"},
                         {"compiler", "NVRTC 13.0.88"},
                         {"registers", 64},
                         {"spill_bytes", 8},
                         {"shared_bytes", 1024},
                         {"compile_seconds", 0.25},
                         {"file_bytes", 4096}};

TEST(Json, SystemInfo) {
    SystemInfo system;
    system.smlora_version = "1.2.3";
    system.driver_found = true;
    system.driver_version = 13000;
    system.nvrtc_error = "libnvrtc.so.13 was not found";
    system.archs = {"sm_80", "sm_90a"};
    system.devices = {{0, "A GPU", "sm_90a", 132, 1000, 100, 10}};
    const json expected = {
        {"schema", 1},
        {"smlora_version", "1.2.3"},
        {"driver", {{"found", true}, {"version", 13000}, {"error", ""}}},
        {"nvrtc", {{"found", false}, {"version", ""}, {"library", ""}, {"error", "libnvrtc.so.13 was not found"}}},
        {"archs", {"sm_80", "sm_90a"}},
        {"devices",
         {{{"ordinal", 0},
           {"name", "A GPU"},
           {"arch", "sm_90a"},
           {"multiprocessors", 132},
           {"memory_bytes", 1000},
           {"l2_bytes", 100},
           {"shared_bytes_per_block", 10}}}}};
    EXPECT_EQ(json::parse(capi::to_json(system)), expected);
}

TEST(Json, CacheLayers) {
    const std::vector<CacheLayer> layers = {{"/top", true, true}, {"/base", false, false}};
    const json expected = {{"schema", 1},
                           {"layers",
                            {{{"root", "/top"}, {"writable", true}, {"exists", true}},
                             {{"root", "/base"}, {"writable", false}, {"exists", false}}}}};
    EXPECT_EQ(json::parse(capi::to_json(layers)), expected);
}

TEST(Json, CacheStats) {
    CacheStats stats;
    stats.layers = {{"/top", true, true}};
    stats.entries = 1;
    stats.bytes = 2;
    stats.limit_bytes = 3;
    stats.memory_hits = 4;
    stats.disk_hits = 5;
    stats.compiles = 6;
    stats.rejected = 7;
    stats.unreadable = {{"/top/v1/kernels", "cannot be read"}};
    const json expected = {
        {"schema", 1},      {"layers", {{{"root", "/top"}, {"writable", true}, {"exists", true}}}},
        {"entries", 1},     {"bytes", 2},
        {"limit_bytes", 3}, {"memory_hits", 4},
        {"disk_hits", 5},   {"compiles", 6},
        {"rejected", 7},    {"unreadable", {{{"file", "/top/v1/kernels"}, {"what", "cannot be read"}}}}};
    EXPECT_EQ(json::parse(capi::to_json(stats)), expected);
}

TEST(Json, CacheEntries) {
    EXPECT_EQ(json::parse(capi::to_json(std::vector<CacheEntryInfo>{entry()})),
              (json{{"schema", 1}, {"entries", json::array({entry_json})}}));
    EXPECT_EQ(json::parse(capi::to_json(std::vector<CacheEntryInfo>{})),
              (json{{"schema", 1}, {"entries", json::array()}}));
}

TEST(Json, OneCacheEntryCarriesItsMetadata) {
    json expected = entry_json;
    expected["schema"] = 1;
    expected["metadata"] = {{"symbol", "smlora_combine"}};
    EXPECT_EQ(json::parse(capi::to_json(entry())), expected);
}

TEST(Json, CacheProblems) {
    const std::vector<CacheProblem> problems = {{"/cache/bad", "wrong hash"}};
    EXPECT_EQ(json::parse(capi::to_json(problems)),
              (json{{"schema", 1}, {"problems", {{{"file", "/cache/bad"}, {"what", "wrong hash"}}}}}));
}

TEST(Json, PrewarmReport) {
    PrewarmReport report;
    report.kernels = 3;
    report.compiled = 2;
    report.found = 1;
    report.seconds = 0.5;
    report.compile_seconds = 1.5;
    report.not_stored = 1;
    report.works = 5;
    report.recorded = 4;
    report.warnings = {"spills"};
    EXPECT_EQ(json::parse(capi::to_json(report)), (json{{"schema", 1},
                                                        {"kernels", 3},
                                                        {"compiled", 2},
                                                        {"found", 1},
                                                        {"seconds", 0.5},
                                                        {"compile_seconds", 1.5},
                                                        {"not_stored", 1},
                                                        {"works", 5},
                                                        {"recorded", 4},
                                                        {"warnings", {"spills"}}}));
}

TEST(Json, TuneReport) {
    TuneReport report;
    report.seconds = 2.5;
    report.stopped = true;
    report.works = {{.tokens = 64,
                     .work = "dx",
                     .outcome = TuneOutcome::out_of_time,
                     .complete = false,
                     .routing = "zipf",
                     .choice = "c1",
                     .reason = "because",
                     .median_seconds = 0.25,
                     .seconds = 1.5,
                     .record = "ab"}};
    EXPECT_EQ(json::parse(capi::to_json(report)), (json{{"schema", 1},
                                                        {"seconds", 2.5},
                                                        {"stopped", true},
                                                        {"works",
                                                         {{{"tokens", 64},
                                                           {"work", "dx"},
                                                           {"outcome", "out of time"},
                                                           {"complete", false},
                                                           {"routing", "zipf"},
                                                           {"choice", "c1"},
                                                           {"reason", "because"},
                                                           {"median_seconds", 0.25},
                                                           {"seconds", 1.5},
                                                           {"record", "ab"}}}}}));
}

TEST(Json, ATextThatIsNotUtf8IsReplacedRatherThanRefused) {
    const std::vector<CacheProblem> problems = {{"/cache/\xff", "wrong hash"}};
    EXPECT_EQ(json::parse(capi::to_json(problems))["problems"][0]["file"], "/cache/\xEF\xBF\xBD");
}

}  // namespace
