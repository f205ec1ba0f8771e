#include "tuning/bundle.hpp"

#include "tuning/bucket.hpp"
#include "tuning/choice.hpp"
#include "tuning/json_fields.hpp"
#include "util/hash.hpp"
#include "util/json.hpp"
#include "util/printable.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace smlora::tuning {
namespace {

// Ratios and deviations have five digits after the point, see condense().
constexpr double parts_of_one = 1e5;

constexpr std::int64_t most_parts = std::numeric_limits<std::int32_t>::max();

// Far more than one GPU is measured in.
constexpr std::size_t most_environments = 256;

constexpr const char* usual_routing = "uniform";

/// Hundred-thousandths.
std::int64_t parts(double value) { return std::llround(value * parts_of_one); }

auto rank(const Environment& e) { return std::tie(e.arch, e.multiprocessors, e.driver, e.compiler, e.templates); }

std::string described(const Candidate& candidate) {
    return Json{{"candidate", candidate.name}, {"configuration", to_json(candidate.configuration)}}.dump();
}

/// Letters and digits that stand for a candidate with its shared memory.
std::string digits_of(const Candidate& candidate) {
    constexpr std::string_view alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    std::string digits = util::xxh128_bytes(fmt::format("{} {}", described(candidate), candidate.shared_bytes));
    for (char& digit : digits) digit = alphabet[static_cast<unsigned char>(digit) % alphabet.size()];
    return digits;
}

/// A tuning on its way into a bundle.
struct Source {
    const RecordName* name = nullptr;
    Tuning tuning;

    [[nodiscard]] auto rank() const {
        return std::tuple_cat(std::tie(name->problem, name->bucket, tuning.slot), tuning::rank(tuning.environment));
    }
};

bool has_every_verdict(const Tuning& tuning) {
    return tuning.complete && std::none_of(tuning.trials.begin(), tuning.trials.end(), [](const Trial& trial) {
               return trial.verdict == Verdict::pending || trial.verdict == Verdict::running;
           });
}

/// The names of candidates in a bundle.
class Keys {
 public:
    void add(const Candidate& candidate) {
        by_candidate_[described(candidate)].insert(candidate.shared_bytes);
        all_.insert(digits_of(candidate));
    }

    /// The first three digits, and as many more as tell it from every other.
    [[nodiscard]] std::string of(const Candidate& candidate) const {
        const std::string digits = digits_of(candidate);
        std::size_t length = 3;
        for (const std::string& other : all_) {
            if (other == digits) continue;
            const auto parted = std::mismatch(digits.begin(), digits.end(), other.begin()).first - digits.begin();
            length = std::max(length, static_cast<std::size_t>(parted) + 1);
        }
        return digits.substr(0, length);
    }

    /// The lines that tell of them.
    [[nodiscard]] std::vector<std::string> lines() const {
        std::vector<std::string> lines;
        for (const auto& [text, amounts] : by_candidate_) {
            Json line = Json::parse(text);
            Candidate candidate{line["candidate"], *configuration_from(line["configuration"]), 0, 0, ""};
            for (const std::int64_t bytes : amounts) {
                candidate.shared_bytes = bytes;
                line["shared_bytes"][of(candidate)] = bytes;
            }
            lines.push_back(line.dump());
        }
        return lines;
    }

 private:
    std::map<std::string, std::set<std::int64_t>> by_candidate_;
    std::set<std::string> all_;
};

Json entry_of(const Trial& trial, const std::string& key) {
    if (trial.verdict == Verdict::refused) return {key, trial.why};
    const Timing timing = trial.timing.value_or(Timing{});
    // A ratio of none would be no ratio.
    const std::int64_t least = timing.samples > 0 ? 1 : 0;
    Json entry{key, std::clamp(parts(timing.ratio), least, most_parts), std::min(parts(timing.deviation), most_parts),
               timing.samples};
    if (trial.verdict == Verdict::slow) entry.push_back("slow");
    return entry;
}

std::string line_of(const Source& source, std::size_t environment, const std::map<std::string, std::string>& keys) {
    const Tuning& tuning = source.tuning;
    Json line{{"problem", source.name->problem}, {"bucket", source.name->bucket}, {"slot", tuning.slot}};
    if (environment != 0) line["environment"] = environment;
    line["date"] = tuning.date.substr(0, 10);
    line["seconds"] = std::round(tuning.seconds * 10) / 10;
    if (tuning.workload.tokens != tokens_of(source.name->bucket)) line["tokens"] = tuning.workload.tokens;
    if (tuning.workload.routing != usual_routing) line["routing"] = tuning.workload.routing;
    line["choice"] = nullptr;
    Json entries = Json::array();
    for (const Trial& trial : tuning.trials) {
        const std::string& key = keys.at(digits_of(trial.candidate));
        if (trial.candidate.configuration == tuning.choice) line["choice"] = key;
        if (trial.timing) line["us"] = std::round(trial.timing->unit_seconds * 1e9) / 1e3;
        entries.push_back(entry_of(trial, key));
    }
    line["candidates"] = std::move(entries);
    return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<Source> sources_of(const std::vector<Record>& records) {
    std::vector<Source> sources;
    for (const Record& record : records) {
        for (const Tuning& tuning : record.tunings) {
            if (!has_every_verdict(tuning)) continue;
            sources.push_back({&record.name, tuning});
            condense(sources.back().tuning.trials);
        }
    }
    std::sort(sources.begin(), sources.end(), [](const Source& a, const Source& b) { return a.rank() < b.rank(); });
    return sources;
}

}  // namespace

std::string bundle_text(const std::string& gpu, const std::vector<Record>& records) {
    const std::vector<Source> sources = sources_of(records);
    Keys keys;
    for (const Source& source : sources) {
        for (const Trial& trial : source.tuning.trials) keys.add(trial.candidate);
    }
    std::map<std::string, std::string> key_of;  // by digits
    std::vector<Environment> environments;
    std::vector<std::string> tunings;
    for (const Source& source : sources) {
        for (const Trial& trial : source.tuning.trials) {
            std::string& key = key_of[digits_of(trial.candidate)];
            if (key.empty()) key = keys.of(trial.candidate);
        }
        auto found = std::find(environments.begin(), environments.end(), source.tuning.environment);
        if (found == environments.end()) found = environments.insert(found, source.tuning.environment);
        tunings.push_back(line_of(source, static_cast<std::size_t>(found - environments.begin()), key_of));
    }

    std::vector<std::string> lines{
        Json{{"format", bundle_format}, {"gpu", gpu}}.dump(-1, ' ', false, Json::error_handler_t::replace)};
    for (const Environment& environment : environments) {
        lines.push_back(Json{{"environment", &environment - environments.data()},
                             {"arch", environment.arch},
                             {"multiprocessors", environment.multiprocessors},
                             {"driver", environment.driver},
                             {"compiler", environment.compiler},
                             {"templates", environment.templates}}
                            .dump());
    }
    for (std::string& line : keys.lines()) lines.push_back(std::move(line));
    for (std::string& line : tunings) lines.push_back(std::move(line));
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    return text + Json{{"lines", lines.size()}, {"xxh128", util::xxh128_hex(text)}}.dump() + "\n";
}

/// Fills a bundle line by line.
class Bundle::Reader {
 public:
    explicit Reader(Bundle& bundle) : bundle_(bundle) {}

    /// Throws Unsound.
    void read(std::string_view text) {
        std::size_t begin = 0;
        while (begin < text.size()) {
            ++line_;
            const std::size_t end = text.find('\n', begin);
            if (end == std::string_view::npos) throw Unsound("it ends within a line");
            if (ended_) throw Unsound("a line behind the last one");
            take(util::parse_json<Json>(text.substr(begin, end - begin)), text.substr(0, begin));
            begin = end + 1;
        }
        if (!ended_) throw Unsound("the last line, with the checksum, is missing");
    }

    [[nodiscard]] std::size_t line() const { return line_; }

 private:
    void take(const Json& json, std::string_view before) {
        if (!json.is_object() || json.empty()) throw Unsound("it is no JSON object");
        const std::string kind = json.begin().key();
        if ((line_ == 1) != (kind == "format")) throw Unsound("expected \"format\" in the first line and no other");
        if (kind == "format") {
            take_header(json);
        } else if (kind == "environment") {
            take_environment(json);
        } else if (kind == "candidate") {
            take_candidate(json);
        } else if (kind == "problem") {
            take_tuning(json);
        } else if (kind == "lines") {
            take_end(json, before);
        } else {
            throw Unsound(fmt::format("a line cannot begin with {}", util::shown(Json(kind))));
        }
    }

    void take_header(const Json& json) {
        if (const auto format = integer(json, "format"); format != bundle_format) {
            throw Unsound(fmt::format("format {}, expected {}", format, bundle_format));
        }
        bundle_.gpu_ = text(json, "gpu");
    }

    void take_environment(const Json& json) {
        if (bundle_.environments_.size() == most_environments) throw Unsound("too many environments");
        if (integer(json, "environment") != static_cast<std::int64_t>(bundle_.environments_.size())) {
            throw Unsound("environments are to be numbered in their order");
        }
        bundle_.environments_.push_back({bundle_.gpu_, text(json, "arch"),
                                         static_cast<int>(integer(json, "multiprocessors", 1 << 20)),
                                         text(json, "driver"), text(json, "compiler"), text(json, "templates")});
    }

    void take_candidate(const Json& json) {
        Candidate candidate;
        candidate.name = text(json, "candidate");
        candidate.configuration = configuration(json, "configuration");
        const Json& amounts = member(json, "shared_bytes");
        if (!amounts.is_object()) throw Unsound("\"shared_bytes\": expected an object");
        for (const auto& [key, value] : amounts.items()) {
            if (!util::is_printable(key) || key.size() > most_text) {
                throw Unsound(fmt::format("{} cannot stand for a candidate", util::shown(Json(key))));
            }
            candidate.shared_bytes = integer(amounts, key.c_str());
            const auto index = static_cast<std::uint32_t>(bundle_.candidates_.size());
            if (!by_key_.emplace(key, index).second)
                throw Unsound(fmt::format("{} stands for two candidates", util::shown(Json(key))));
            bundle_.candidates_.push_back(candidate);
        }
    }

    void take_tuning(const Json& json) {
        const auto bucket = static_cast<std::uint8_t>(integer(json, "bucket", 31));
        Key key{text(json, "problem"), bucket, text(json, "slot")};
        Line line;
        const std::int64_t environment = json.contains("environment") ? integer(json, "environment") : 0;
        line.environment = static_cast<std::uint32_t>(environment);
        if (environment >= static_cast<std::int64_t>(bundle_.environments_.size())) {
            throw Unsound(fmt::format("there is no environment {}", environment));
        }
        line.date = text(json, "date");
        line.seconds = number(json, "seconds");
        line.workload = {json.contains("tokens") ? integer(json, "tokens") : tokens_of(bucket),
                         json.contains("routing") ? text(json, "routing") : usual_routing};
        // As condense() rounds it.
        if (json.contains("us")) line.unit_seconds = std::round(positive(json, "us") * 1e3) / 1e9;
        for (const Json& entry : array(json, "candidates", most_candidates))
            line.entries.push_back(entry_of(entry, line));
        if (!json.contains("choice")) throw Unsound("\"choice\" is missing");
        if (!json["choice"].is_null()) line.choice = choice_of(text(json, "choice"), line);
        const auto [first, last] = bundle_.lines_.equal_range(key);
        if (std::any_of(first, last, [&](const auto& other) { return other.second.environment == line.environment; })) {
            throw Unsound("the tuning stands there twice");
        }
        bundle_.lines_.emplace(std::move(key), std::move(line));
    }

    [[nodiscard]] std::uint32_t candidate_of(const std::string& key) const {
        const auto found = by_key_.find(key);
        if (found == by_key_.end()) throw Unsound(fmt::format("{} stands for no candidate", util::shown(Json(key))));
        return found->second;
    }

    [[nodiscard]] Entry entry_of(const Json& json, const Line& line) const {
        const auto refuse = [&]() { throw Unsound(fmt::format("{} tells of no candidate", util::shown(json))); };
        if (!json.is_array() || json.size() < 2 || json.size() > 5 || !json[0].is_string()) refuse();
        Entry entry;
        entry.candidate = candidate_of(json[0].get<std::string>());
        if (json.size() == 2) {
            if (!json[1].is_string()) refuse();
            entry.verdict = Verdict::refused;
            entry.why = util::printable(json[1].get<std::string>(), most_message);
            return entry;
        }
        if (json.size() < 4) refuse();
        const auto amount = [&](std::size_t at) {
            if (!json[at].is_number_integer() || json[at] < 0 || json[at] > most_parts) refuse();
            return json[at].get<std::int32_t>();
        };
        entry.ratio = amount(1);
        entry.deviation = amount(2);
        entry.samples = amount(3);
        if (entry.samples > 0 && (entry.ratio == 0 || line.unit_seconds == 0)) refuse();
        if (json.size() == 5) {
            if (json[4] != "slow") refuse();
            entry.verdict = Verdict::slow;
        }
        return entry;
    }

    [[nodiscard]] std::uint32_t choice_of(const std::string& key, const Line& line) const {
        const std::uint32_t choice = candidate_of(key);
        if (std::none_of(line.entries.begin(), line.entries.end(), [&](const Entry& entry) {
                return entry.candidate == choice && entry.verdict != Verdict::refused;
            })) {
            throw Unsound(
                fmt::format("the choice {} is not among the candidates, or was refused", util::shown(Json(key))));
        }
        return choice;
    }

    void take_end(const Json& json, std::string_view before) {
        if (integer(json, "lines") != static_cast<std::int64_t>(line_) - 1) throw Unsound("lines are missing");
        if (const std::string found = util::xxh128_hex(before); found != text(json, "xxh128")) {
            throw Unsound(fmt::format("the checksum is {}, expected {}: the file was damaged, or edited", found,
                                      text(json, "xxh128")));
        }
        ended_ = true;
    }

    Bundle& bundle_;
    std::map<std::string, std::uint32_t> by_key_;
    std::size_t line_ = 0;
    bool ended_ = false;
};

std::optional<Bundle> Bundle::parse(std::string_view text, std::string& why) {
    Bundle bundle;
    Reader reader(bundle);
    try {
        reader.read(text);
        return bundle;
    } catch (const Unsound& error) {
        why = fmt::format("line {}: {}", reader.line(), error.what());
    } catch (const Json::exception& error) {
        why = fmt::format("line {}: {}", reader.line(), error.what());
    }
    return std::nullopt;
}

Tuning Bundle::tuning_of(const std::string& slot, const Line& line) const {
    Tuning tuning;
    tuning.slot = slot;
    tuning.environment = environments_[line.environment];
    tuning.workload = line.workload;
    tuning.date = line.date;
    tuning.seconds = line.seconds;
    tuning.complete = true;
    tuning.trials.reserve(line.entries.size());
    for (const Entry& entry : line.entries) {
        Trial& trial = tuning.trials.emplace_back();
        trial.candidate = candidates_[entry.candidate];
        trial.verdict = entry.verdict;
        trial.why = entry.why;
        if (entry.samples == 0) continue;
        trial.timing = {line.unit_seconds, entry.ratio / parts_of_one, entry.deviation / parts_of_one, entry.samples};
    }
    if (line.choice) tuning.choice = candidates_[*line.choice].configuration;
    return tuning;
}

std::optional<Tuning> Bundle::find(std::string_view problem, std::uint8_t bucket, std::string_view slot,
                                   const Environment& environment) const {
    const auto [first, last] = lines_.equal_range(KeyView(problem, bucket, slot));
    for (auto at = first; at != last; ++at) {
        if (mismatch(environments_[at->second.environment], environment).empty()) {
            return tuning_of(std::get<2>(at->first), at->second);
        }
    }
    return std::nullopt;
}

std::vector<Environment> Bundle::environments(std::string_view problem, std::uint8_t bucket,
                                              std::string_view slot) const {
    std::vector<Environment> found;
    const auto [first, last] = lines_.equal_range(KeyView(problem, bucket, slot));
    for (auto at = first; at != last; ++at) found.push_back(environments_[at->second.environment]);
    return found;
}

std::vector<Record> Bundle::records() const {
    std::vector<Record> records;
    for (const auto& [key, line] : lines_) {
        const auto& [problem, bucket, slot] = key;
        const RecordName name{gpu_, problem, bucket};
        if (records.empty() || records.back().name != name) records.push_back({name, {}});
        records.back().tunings.push_back(tuning_of(slot, line));
    }
    return records;
}

}  // namespace smlora::tuning
