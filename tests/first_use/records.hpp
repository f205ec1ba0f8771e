// What a cache has recorded, sample by sample.
#pragma once

#include "first_use/machine.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace smlora::test {

inline std::vector<nlohmann::json> records_in(const std::filesystem::path& root) {
    std::vector<nlohmann::json> records;
    if (!std::filesystem::exists(root / "v1/tuning")) return records;
    for (const auto& item : std::filesystem::recursive_directory_iterator(root / "v1/tuning")) {
        if (item.path().extension() != ".json") continue;
        records.push_back(nlohmann::json::parse(read(item.path()), nullptr, false));
        EXPECT_TRUE(records.back().is_object()) << item.path() << " is no whole record";
    }
    return records;
}

/// What is recorded of forward.
struct Measured {
    explicit Measured(const std::filesystem::path& root) {
        for (const nlohmann::json& record : records_in(root)) {
            for (const auto& tuning : record["tunings"]) {
                if (tuning["slot"] != "forward") continue;
                complete = tuning["complete"];
                for (const auto& candidate : tuning["candidates"]) add(candidate);
            }
        }
    }
    void add(const nlohmann::json& candidate) {
        const std::string name = candidate["name"];
        const nlohmann::json& samples_us = candidate["samples_us"];
        samples[name] = samples_us;
        counts[name] =
            std::count_if(samples_us.begin(), samples_us.end(), [](const auto& one) { return one.is_number(); });
        // Once there is no more to be measured, what samples come to stands in their place.
        if (candidate["timing"].is_object()) counts[name] += candidate["timing"]["samples"].get<std::int64_t>();
        taken += counts[name];
        rounds = std::max(rounds, static_cast<int>(samples_us.size()));
    }

    bool complete = false;
    std::map<std::string, nlohmann::json> samples;  ///< by candidate, null where it took no part
    std::map<std::string, std::int64_t> counts;     ///< of samples, by candidate
    std::int64_t taken = 0;                         ///< of all candidates
    int rounds = 0;
};

inline void expect_kept(const Measured& before, const Measured& after) {
    for (const auto& [name, samples] : before.samples) {
        const auto found = after.samples.find(name);
        ASSERT_NE(found, after.samples.end()) << name;
        EXPECT_GE(after.counts.at(name), before.counts.at(name)) << name;
        if (after.complete) continue;
        ASSERT_GE(found->second.size(), samples.size()) << name;
        EXPECT_TRUE(std::equal(samples.begin(), samples.end(), found->second.begin()))
            << name << ": " << samples << " became " << found->second;
    }
}

}  // namespace smlora::test
