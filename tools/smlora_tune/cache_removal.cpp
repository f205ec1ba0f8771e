// smlora-tune cache clear and prune: making the writable layer smaller.
#include "smlora_tune/cache_command.hpp"
#include "smlora_tune/output.hpp"
#include "smlora_tune/units.hpp"

#include "cache/inspection.hpp"
#include "engine/engine_impl.hpp"
#include "gpu/arch.hpp"
#include "util/counted.hpp"
#include "util/environment.hpp"

#include <smlora/cache.hpp>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <optional>
#include <vector>

namespace smlora::tool {
namespace {

/// Asks on the terminal; true when the answer is yes. Throws UsageError where nobody can answer.
bool confirm(const std::string& what) {
    if (isatty(STDIN_FILENO) != 1) {
        throw UsageError(
            fmt::format("cache clear: expected --yes where stdin is no terminal to ask on; it removes {}", what));
    }
    print_remark("Remove {}? [y/N] ", what);
    std::string answer;
    std::getline(std::cin, answer);
    return answer == "y" || answer == "Y" || answer == "yes";
}

/// A whole number with s, m, h or d.
std::chrono::seconds parse_age(const std::string& text) {
    std::int64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    const std::string unit(stop, end);
    const std::int64_t seconds = unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : unit == "d" ? 86400 : 0;
    constexpr std::int64_t a_century = std::int64_t{36525} * 86400;
    if (error != std::errc{} || number < 0 || seconds == 0 || number > a_century / seconds) {
        throw UsageError(fmt::format("--older-than: expected a whole number with s, m, h or d, got '{}'", text));
    }
    return std::chrono::seconds(number * seconds);
}

std::uint64_t parse_bytes(const std::string& text) {
    const std::optional<std::uint64_t> bytes = util::parse_size(text);
    if (!bytes) {
        throw UsageError(
            fmt::format("--max-size: expected a number of bytes, or one with the suffix K, M or G, got '{}'", text));
    }
    return *bytes;
}

cache::PruneOptions prune_options(const CacheCommand& command) {
    cache::PruneOptions options;
    options.dry_run = command.dry_run;
    try {
        if (!command.arch.empty()) options.arch = gpu::arch_from_name(command.arch).name();
    } catch (const Error& error) {
        throw UsageError(fmt::format("--{}", error.what()));
    }
    if (!command.older_than.empty()) options.unused_for = parse_age(command.older_than);
    if (!command.max_size.empty()) options.max_bytes = parse_bytes(command.max_size);
    if (options.arch.empty() && !options.unused_for && !options.max_bytes) {
        throw UsageError("cache prune: expected --max-size, --older-than or --arch; `cache clear` removes everything");
    }
    return options;
}

std::string cleared_text(bool wanted, std::uint64_t removed, std::uint64_t left, const char* what) {
    return wanted ? util::counted(removed, what) + " removed" : util::counted(left, what) + " left";
}

}  // namespace

ExitCode run_clear(const Engine& engine, const CacheCommand& command) {
    const bool kernels = command.what != "records";
    const bool records = command.what == "records" || command.what == "all";
    const std::string folder = writable_folder(engine).string();
    cache::Cache& cache = engine.impl().cache;
    const cache::CacheUsage before = cache.usage();
    const std::string what =
        fmt::format("{}{}{} of {}",
                    kernels ? fmt::format("{} ({})", util::counted(before.entries, "kernel"), bytes_text(before.bytes))
                            : std::string(),
                    kernels && records ? " and " : "",
                    records ? fmt::format("{} and {}", util::counted(before.records, "tuning record"),
                                          util::counted(before.bundles, "bundle"))
                            : std::string(),
                    folder);
    if (!command.dry_run && !command.yes && !confirm(what)) {
        print_remark("smlora-tune: nothing was removed\n");
        return ExitCode::failure;
    }
    std::uint64_t removed = kernels ? before.entries : 0;
    std::uint64_t removed_records = records ? before.records + before.bundles : 0;
    std::uint64_t left = before.entries - removed;
    std::uint64_t records_left = records ? 0 : before.records;
    std::vector<CacheProblem> problems = before.unreadable;
    if (!command.dry_run) {
        problems.clear();
        if (kernels) removed = cache.clear(&problems);
        if (records) removed_records = cache.clear_records(&problems);
        const cache::CacheUsage after = cache.usage();
        left = after.entries;
        records_left = after.records;
        for (const CacheProblem& problem : after.unreadable) {
            const auto same = [&](const CacheProblem& known) { return known.file == problem.file; };
            if (std::none_of(problems.begin(), problems.end(), same)) problems.push_back(problem);
        }
    }
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("cache clear");
        document["folder"] = folder;
        document["dry_run"] = command.dry_run;
        document["removed"] = removed;
        document["removed_records"] = removed_records;
        document["kernels_left"] = left;
        document["records_left"] = records_left;
        print_json(document);
    } else if (command.dry_run) {
        print_results("would remove {}\n", what);
    } else {
        print_results("{}: {}, {}\n", folder, cleared_text(kernels, removed, left, "kernel"),
                      cleared_text(records, removed_records, records_left, "tuning record"));
    }
    cache::require_none(problems);
    return ExitCode::ok;
}

ExitCode run_prune(const Engine& engine, const CacheCommand& command) {
    const cache::PruneOptions options = prune_options(command);
    const std::string folder = writable_folder(engine).string();
    const cache::PruneReport report = engine.impl().cache.prune(options);
    if (command.common.json) {
        nlohmann::ordered_json document = json_document("cache prune");
        document["folder"] = folder;
        document["dry_run"] = command.dry_run;
        document["removed"] = report.removed;
        document["removed_bytes"] = report.removed_bytes;
        document["kernels_left"] = report.left;
        document["bytes_left"] = report.left_bytes;
        print_json(document);
    } else {
        print_results("{}: {} ({}) {}, {} ({}) left\n", folder, util::counted(report.removed, "kernel"),
                      bytes_text(report.removed_bytes), command.dry_run ? "would be removed" : "removed", report.left,
                      bytes_text(report.left_bytes));
    }
    cache::require_none(report.problems);
    return ExitCode::ok;
}

}  // namespace smlora::tool
