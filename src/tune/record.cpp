#include "tune/record.hpp"

#include "tune/choice.hpp"
#include "util/hash.hpp"
#include "util/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace smlora::tune {
namespace {

using Json = nlohmann::ordered_json;

// Two compilers in turn on one machine are common, a dozen are leftovers.
constexpr std::ptrdiff_t environments_kept = 4;

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
            {"samples_us", std::move(samples)}};
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

/// Caught by parse_record: why a text is no record.
struct Unsound : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <class Value>
Value field(const Json& json, const char* name, bool right_type) {
    if (!json.is_object() || !json.contains(name)) throw Unsound(fmt::format("\"{}\" is missing", name));
    if (!right_type) throw Unsound(fmt::format("\"{}\" has the wrong type: {}", name, json[name].dump()));
    return json[name].get<Value>();
}

const Json& member(const Json& json, const char* name) {
    static const Json none;
    const auto found = json.is_object() ? json.find(name) : json.end();
    return json.is_object() && found != json.end() ? *found : none;
}

std::string text(const Json& json, const char* name) {
    return field<std::string>(json, name, member(json, name).is_string());
}

double number(const Json& json, const char* name) {
    const auto value = field<double>(json, name, member(json, name).is_number());
    if (!(value >= 0) || std::isinf(value)) throw Unsound(fmt::format("\"{}\" is no amount: {}", name, value));
    return value;
}

std::int64_t integer(const Json& json, const char* name, std::int64_t most) {
    const auto value = field<std::int64_t>(json, name, member(json, name).is_number_integer());
    if (value < 0 || value > most) throw Unsound(fmt::format("\"{}\" is out of range: {}", name, value));
    return value;
}

constexpr std::int64_t any = std::numeric_limits<std::int64_t>::max();

const Json& array(const Json& json, const char* name) {
    if (!member(json, name).is_array()) throw Unsound(fmt::format("\"{}\" is no array", name));
    return member(json, name);
}

Configuration configuration(const Json& json, const char* name) {
    auto read = configuration_from(member(json, name));
    if (!read) throw Unsound(fmt::format("\"{}\" is no configuration: {}", name, member(json, name).dump()));
    return std::move(*read);
}

Environment read_environment(const Json& json) {
    return {text(json, "gpu"),    text(json, "arch"),     static_cast<int>(integer(json, "multiprocessors", 1 << 20)),
            text(json, "driver"), text(json, "compiler"), text(json, "templates")};
}

Trial read_trial(const Json& json) {
    Trial trial;
    trial.candidate.name = text(json, "name");
    trial.candidate.configuration = configuration(json, "configuration");
    trial.candidate.predicted_seconds = number(json, "predicted_us") * 1e-6;
    trial.candidate.shared_bytes = integer(json, "shared_bytes", any);
    trial.registers = integer(json, "registers", any);
    trial.spill_bytes = integer(json, "spill_bytes", any);
    trial.compile_seconds = number(json, "compile_seconds");
    const std::string verdict = text(json, "verdict");
    const auto found = std::find(verdict_names.begin(), verdict_names.end(), verdict);
    if (found == verdict_names.end()) throw Unsound(fmt::format("\"{}\" is no verdict", verdict));
    trial.verdict = static_cast<Verdict>(found - verdict_names.begin());
    trial.why = text(json, "why");
    trial.error = number(json, "error");
    trial.spent_seconds = number(json, "spent_seconds");
    for (const Json& sample : array(json, "samples_us")) {
        const bool time = sample.is_number() && sample.get<double>() > 0 && std::isfinite(sample.get<double>());
        if (!time && !sample.is_null()) throw Unsound(fmt::format("{} is no sample", sample.dump()));
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
    tuning.workload = {integer(workload, "tokens", any), text(workload, "routing")};
    tuning.seed = field<std::uint64_t>(json, "seed", member(json, "seed").is_number_unsigned());
    tuning.seconds = number(json, "seconds");
    tuning.complete = field<bool>(json, "complete", member(json, "complete").is_boolean());
    for (const Json& trial : array(json, "candidates")) tuning.trials.push_back(read_trial(trial));
    if (!json.contains("choice")) throw Unsound("\"choice\" is missing");
    if (json["choice"].is_null()) return tuning;
    tuning.choice = configuration(json, "choice");
    const bool stands = std::any_of(tuning.trials.begin(), tuning.trials.end(), [&](const Trial& trial) {
        return trial.candidate.configuration == *tuning.choice && trial.verdict != Verdict::refused;
    });
    if (!stands) {
        throw Unsound(fmt::format("the choice of {} is none of its candidates that were right: {}", tuning.slot,
                                  json["choice"].dump()));
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
    const Json json{{"format", record_format},
                    {"gpu", record.name.gpu},
                    {"problem", record.name.problem},
                    {"bucket", record.name.bucket},
                    {"tunings", std::move(tunings)}};
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<Record> parse_record(const std::string& content, std::string& why) {
    const Json json = util::parse_json<Json>(content);
    try {
        if (!json.is_object()) throw Unsound("it is no JSON object");
        if (const auto format = integer(json, "format", any); format != record_format) {
            throw Unsound(fmt::format("format {}, expected {}", format, record_format));
        }
        Record record;
        record.name = {text(json, "gpu"), text(json, "problem"),
                       static_cast<std::uint8_t>(integer(json, "bucket", 31))};
        for (const Json& tuning : array(json, "tunings")) record.tunings.push_back(read_tuning(tuning));
        return record;
    } catch (const Unsound& error) {
        why = error.what();
    } catch (const Json::exception& error) {
        why = error.what();
    }
    return std::nullopt;
}

}  // namespace smlora::tune
