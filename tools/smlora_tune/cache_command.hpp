// The command line of `smlora-tune cache` and what its sub-commands share.
#pragma once

#include "smlora_tune/command.hpp"

#include "cache/cache.hpp"

#include <smlora/engine.hpp>

#include <filesystem>
#include <string>

namespace smlora::tool {

struct CacheCommand {
    CommonOptions common;
    std::string key;   ///< inspect
    std::string what;  ///< clear: kernels, records or all; kernels if it is empty
    bool yes = false;
    bool dry_run = false;
    bool repair = false;
    bool zero = false;
    std::string max_size;
    std::string older_than;
    std::string arch;
};

/// What the writable layer holds. Throws Error{io} for a folder that cannot be read.
[[nodiscard]] cache::CacheUsage usage_of(const Engine& engine);

/// The writable layer. Throws when there is none.
[[nodiscard]] std::filesystem::path writable_folder(const Engine& engine);

ExitCode run_clear(const Engine& engine, const CacheCommand& command);
ExitCode run_prune(const Engine& engine, const CacheCommand& command);

}  // namespace smlora::tool
