#include "tuning/record.hpp"

#include "tuning/choice.hpp"
#include "tuning/json_fields.hpp"
#include "util/hash.hpp"
#include "util/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace smlora::tuning {
namespace {

// Two compilers in turn on one machine are common, a dozen are leftovers.
constexpr std::ptrdiff_t environments_kept = 4;

// Far more than anything is timed.
constexpr std::int64_t most_samples = 1 << 30;

// Far more than there are: a dozen pieces of work in four environments.
constexpr std::size_t most_tunings = 256;

// What the record's checksum is called. It is the hash of the record without it, as compact JSON.
constexpr const char* checksum_field = "xxh128";

constexpr std::array verdict_names{"pending", "refused", "slow", "measured", "running"};

/// Microseconds to the nanosecond, which is more than a sample can be exact to.
double microseconds(double seconds) { return std::round(seconds * 1e9) / 1e3; }

/// To three digits after the point: for people.
double rounded(double value) { return std::round(value * 1e3) / 1e3; }

Json to_json(const Environment& environment) {
    return {{"gpu", environment.gpu},
            {"arch", environment.arch},
            {"multiprocessors", environment.multiprocessors},
            {"driver", environment.driver},
            {"compiler", environment.compiler},
            {"templates", environment.templates}};
}

Json to_json(const std::optional<Timing>& timing) {
    if (!timing) return nullptr;
    return {{"unit_us", microseconds(timing->unit_seconds)},
            {"ratio", timing->ratio},
            {"deviation", timing->deviation},
            {"samples", timing->samples}};
}

Json to_json(const Trial& trial) {
    Json samples = Json::array();
    for (const double sample : trial.samples) {
        samples.push_back(std::isnan(sample) ? Json(nullptr) : Json(microseconds(sample)));
    }
    return {{"name", trial.candidate.name},
            {"configuration", to_json(trial.candidate.configuration)},
            {"predicted_us", microseconds(trial.candidate.predicted_seconds)},
            {"shared_bytes", trial.candidate.shared_bytes},
            {"registers", trial.registers},
            {"spill_bytes", trial.spill_bytes},
            {"compile_seconds", rounded(trial.compile_seconds)},
            {"verdict", verdict_names[static_cast<std::size_t>(trial.verdict)]},
            {"why", trial.why},
            {"error", trial.error},
            {"spent_seconds", rounded(trial.spent_seconds)},
            {"timing", to_json(trial.timing)},
            {"samples_us", std::move(samples)}};
}

std::string checksum(const Json& json) {
    return util::xxh128_hex(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Json to_json(const Tuning& tuning) {
    Json candidates = Json::array();
    for (const Trial& trial : tuning.trials) candidates.push_back(to_json(trial));
    return {{"slot", tuning.slot},
            {"environment", to_json(tuning.environment)},
            {"date", tuning.date},
            {"workload", {{"tokens", tuning.workload.tokens}, {"routing", tuning.workload.routing}}},
            {"seed", tuning.seed},
            {"seconds", rounded(tuning.seconds)},
            {"complete", tuning.complete},
            {"choice", tuning.choice ? to_json(*tuning.choice) : Json(nullptr)},
            {"reason", judge(tuning.trials).reason},
            {"candidates", std::move(candidates)}};
}

Environment read_environment(const Json& json) {
    return {text(json, "gpu"),    text(json, "arch"),     static_cast<int>(integer(json, "multiprocessors", 1 << 20)),
            text(json, "driver"), text(json, "compiler"), text(json, "templates")};
}

std::optional<Timing> read_timing(const Json& json) {
    if (!json.contains("timing")) throw Unsound("\"timing\" is missing");
    const Json& timing = json["timing"];
    if (timing.is_null()) return std::nullopt;
    // As condense() rounds it.
    return Timing{std::round(positive(timing, "unit_us") * 1e3) / 1e9, positive(timing, "ratio"),
                  number(timing, "deviation"), static_cast<int>(integer(timing, "samples", most_samples))};
}

Trial read_trial(const Json& json) {
    Trial trial;
    trial.candidate.name = text(json, "name");
    trial.candidate.configuration = configuration(json, "configuration");
    trial.candidate.predicted_seconds = number(json, "predicted_us") * 1e-6;
    trial.candidate.shared_bytes = integer(json, "shared_bytes");
    trial.registers = integer(json, "registers");
    trial.spill_bytes = integer(json, "spill_bytes");
    trial.compile_seconds = number(json, "compile_seconds");
    const std::string verdict = text(json, "verdict");
    const auto found = std::find(verdict_names.begin(), verdict_names.end(), verdict);
    if (found == verdict_names.end()) throw Unsound(fmt::format("{} is no verdict", util::shown(Json(verdict))));
    trial.verdict = static_cast<Verdict>(found - verdict_names.begin());
    trial.why = message(json, "why");
    // Of a wrong candidate it may be anything.
    trial.error = number(json, "error", std::numeric_limits<double>::max());
    trial.spent_seconds = number(json, "spent_seconds");
    trial.timing = read_timing(json);
    for (const Json& sample : array(json, "samples_us", any_number)) {
        const bool time = sample.is_number() && sample.get<double>() > 0 && sample.get<double>() <= most_number;
        if (!time && !sample.is_null()) throw Unsound(fmt::format("{} is no sample", util::shown(sample)));
        trial.samples.push_back(time ? sample.get<double>() * 1e-6 : no_sample);
    }
    return trial;
}

Tuning read_tuning(const Json& json) {
    Tuning tuning;
    tuning.slot = text(json, "slot");
    tuning.environment = read_environment(member(json, "environment"));
    tuning.date = text(json, "date");
    const Json& workload = member(json, "workload");
    tuning.workload = {integer(workload, "tokens"), text(workload, "routing")};
    tuning.seed = unsigned_integer(json, "seed");
    tuning.seconds = number(json, "seconds");
    tuning.complete = boolean(json, "complete");
    for (const Json& trial : array(json, "candidates", most_candidates)) tuning.trials.push_back(read_trial(trial));
    if (!json.contains("choice")) throw Unsound("\"choice\" is missing");
    if (json["choice"].is_null()) return tuning;
    tuning.choice = configuration(json, "choice");
    const bool stands = std::any_of(tuning.trials.begin(), tuning.trials.end(), [&](const Trial& trial) {
        return trial.candidate.configuration == *tuning.choice && trial.verdict != Verdict::refused;
    });
    if (!stands) {
        throw Unsound(fmt::format("the choice of {} is not among its candidates, or was refused: {}", tuning.slot,
                                  util::shown(json["choice"])));
    }
    return tuning;
}

}  // namespace

std::string RecordName::key() const {
    return util::FieldHasher()
        .add("record_format", std::to_string(record_format))
        .add("gpu", gpu)
        .add("problem", problem)
        .add("bucket", std::to_string(bucket))
        .hex();
}

const Tuning* Record::find(std::string_view slot, const Environment& environment) const {
    const auto found = std::find_if(tunings.begin(), tunings.end(), [&](const Tuning& tuning) {
        return tuning.slot == slot && mismatch(tuning.environment, environment).empty();
    });
    return found == tunings.end() ? nullptr : &*found;
}

void Record::put(const Tuning& tuning) {
    const auto same_slot = [&](const Tuning& other) { return other.slot == tuning.slot; };
    if (const Tuning* known = find(tuning.slot, tuning.environment)) {
        tunings[static_cast<std::size_t>(known - tunings.data())] = tuning;
        return;
    }
    if (std::count_if(tunings.begin(), tunings.end(), same_slot) >= environments_kept) {
        const auto later = [&](const Tuning& a, const Tuning& b) {
            if (same_slot(a) != same_slot(b)) return !same_slot(a);
            return a.date > b.date;
        };
        tunings.erase(std::max_element(tunings.begin(), tunings.end(), later));
    }
    tunings.push_back(tuning);
}

std::string record_text(const Record& record) {
    Json tunings = Json::array();
    for (const Tuning& tuning : record.tunings) tunings.push_back(to_json(tuning));
    Json json{{"format", record_format},
              {"gpu", record.name.gpu},
              {"problem", record.name.problem},
              {"bucket", record.name.bucket},
              {"tunings", std::move(tunings)}};
    json[checksum_field] = checksum(json);
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<Record> parse_record(const std::string& content, std::string& why) {
    Json json = util::parse_json<Json>(content);
    try {
        if (!json.is_object()) throw Unsound("it is no JSON object");
        if (const auto format = integer(json, "format"); format != record_format) {
            throw Unsound(fmt::format("format {}, expected {}", format, record_format));
        }
        Record record;
        record.name = {text(json, "gpu"), text(json, "problem"),
                       static_cast<std::uint8_t>(integer(json, "bucket", 31))};
        for (const Json& tuning : array(json, "tunings", most_tunings)) record.tunings.push_back(read_tuning(tuning));
        const std::string noted = text(json, checksum_field);
        json.erase(checksum_field);
        if (const std::string found = checksum(json); found != noted) {
            throw Unsound(fmt::format("its checksum is {}, expected {}: it was damaged, or edited", found, noted));
        }
        return record;
    } catch (const Unsound& error) {
        why = error.what();
    } catch (const Json::exception& error) {
        why = error.what();
    }
    return std::nullopt;
}

}  // namespace smlora::tuning
