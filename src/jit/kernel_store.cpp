#include "jit/kernel_store.hpp"

#include "jit/entry_metadata.hpp"
#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <set>

namespace smlora::jit {
namespace {

CompilerIdentity identity_for(const cache::Cache& cache, NvrtcAccess access) {
    const std::vector<CacheLayer> layers = cache.layers();
    std::optional<cache::Layer> writable;
    if (!layers.empty() && layers.front().writable) writable.emplace(cache.folders().front());
    return {cache.folders(), std::move(writable), std::move(access)};
}

/// Throws Error{invalid_argument} for a value that is neither.
bool compiling_is_allowed() {
    const std::string value = util::environment("SMLORA_JIT").value_or("on");
    if (value != "on" && value != "off") {
        throw Error(ErrorCode::invalid_argument, fmt::format("SMLORA_JIT: expected on or off, got \"{}\"", value));
    }
    return value == "on";
}

}  // namespace

KernelStore::KernelStore(cache::Cache& cache, util::Logger& log, LibraryCounters& counters, NvrtcAccess access)
    : cache_(cache),
      log_(log),
      counters_(counters),
      templates_(Templates::from_environment()),
      compiler_(identity_for(cache, std::move(access))),
      may_compile_(compiling_is_allowed()) {}

std::vector<CompilerVersion> KernelStore::compilers_to_look_for() {
    if (const std::optional<CompilerVersion> installed = compiler_.installed()) {
        return {*installed};
    }
    std::vector<CompilerVersion> noted = compiler_.noted();
    if (!noted.empty()) {
        return noted;
    }
    // Entries that came without the notes, by an import for example. Every one of them is read for this, so it is done
    // once, unless there are none yet.
    const std::lock_guard lock(mutex_);
    if (!listed_.empty()) {
        return listed_;
    }
    std::set<CompilerVersion, std::greater<>> versions;
    constexpr std::string_view prefix = "nvrtc ";
    for (const CacheEntryInfo& entry : cache_.list()) {
        if (!entry.compiler.starts_with(prefix)) {
            continue;
        }
        if (const auto version = compiler_version_from_number(std::string_view(entry.compiler).substr(prefix.size()))) {
            versions.insert(*version);
        }
    }
    listed_.assign(versions.begin(), versions.end());
    return listed_;
}

std::string KernelStore::compiler_version() {
    const std::optional<CompilerVersion> installed = compiler_.installed();
    return installed ? installed->number() : std::string();
}

std::string KernelStore::template_digest(const std::vector<std::string>& families) const {
    const std::lock_guard lock(digests_mutex_);
    if (const auto known = digests_.find(families); known != digests_.end()) return known->second;
    std::vector<Template> all;
    for (const std::string& family : families) {
        for (Template& item : templates_.closure(family + ".cuh")) {
            if (std::find(all.begin(), all.end(), item) == all.end()) all.push_back(std::move(item));
        }
    }
    std::sort(all.begin(), all.end(), [](const Template& a, const Template& b) { return a.name < b.name; });
    std::string found = digest(all);
    if (templates_.embedded_in_library()) digests_[families] = found;
    return found;
}

std::vector<double> KernelStore::compile_seconds() const {
    const std::lock_guard lock(mutex_);
    return compile_seconds_;
}

std::shared_ptr<const StoredKernel> KernelStore::find(const KernelSpec& spec, const gpu::Arch& arch) {
    for (const CompilerVersion& compiler : compilers_to_look_for()) {
        const CompileRequest request = compile_request(spec, arch, compiler, templates_);
        if (Shared kernel = load(request, cache_key(request))) {
            return kernel;
        }
    }
    return nullptr;
}

std::shared_ptr<const StoredKernel> KernelStore::obtain(const KernelSpec& spec, const gpu::Arch& arch, Use use) {
    if (use == Use::cached) {
        if (Shared kernel = find(spec, arch)) {
            return kernel;
        }
    }
    if (!may_compile_) {
        throw Error(ErrorCode::jit_off,
                    fmt::format("kernel {} for {} {}, and SMLORA_JIT=off lets nothing be compiled; without that "
                                "variable, `smlora-tune prewarm --arch {}` with the job's model and types makes it",
                                readable(spec), arch.name(),
                                use == Use::compiled_anew ? "is in the cache, but the driver refuses it"
                                                          : "is in no layer of the cache",
                                arch.name()));
    }
    const std::optional<CompilerVersion> installed = compiler_.installed();
    if (!installed) {
        throw Error(ErrorCode::compile,
                    fmt::format("kernel {} for {} {}, and {}", readable(spec), arch.name(),
                                use == Use::compiled_anew ? "is in the cache, but the driver refuses it"
                                                          : "is in no layer of the cache",
                                compiler_.why_not()));
    }
    return compile(compile_request(spec, arch, *installed, templates_), use);
}

std::shared_ptr<const StoredKernel> KernelStore::load(const CompileRequest& request, const std::string& key) {
    {
        const std::lock_guard lock(mutex_);
        // No copy in a layer can be better than this one: it was compiled because there was none that could be used.
        if (const auto kept = unstored_.find(key); kept != unstored_.end()) {
            return kept->second;
        }
    }
    std::optional<cache::KernelEntry> entry = cache_.load(key);
    if (!entry) {
        return nullptr;
    }
    std::string why;
    if (!is_entry_of(*entry, request, key, why)) {
        ++counters_.rejected;
        log_.warning(fmt::format("cache entry {} ({}) is not used: {}", key, readable(request.spec), why));
        return nullptr;
    }
    ++counters_.disk_hits;
    return std::make_shared<const StoredKernel>(StoredKernel{key, std::move(*entry), true, true});
}

std::shared_ptr<const StoredKernel> KernelStore::compile(CompileRequest request, Use use) {
    const Nvrtc& nvrtc = compiler_.open();
    if (nvrtc.version() != request.compiler) {
        // The note was wrong, so the look into the cache was for other keys: it is made again below.
        request = compile_request(request.spec, request.arch, nvrtc.version(), templates_);
    }
    const std::string key = cache_key(request);
    bool joined = true;
    const Shared made = flights_.run(key, [&]() -> Shared {
        joined = false;
        if (use == Use::compiled_anew) {
            return compile_and_store(request, key, nvrtc);
        }
        Shared kernel;
        const auto load_or_compile = [&] {
            kernel = load(request, key);
            if (!kernel) {
                kernel = compile_and_store(request, key, nvrtc);
            }
        };
        cache_.with_lock(key, load_or_compile, std::nullopt, [&] { return cache_.contains(key); });
        return kernel;
    });
    if (!joined || made->found) return made;
    // Another thread compiled it, and only that one tells so.
    StoredKernel found = *made;
    found.found = true;
    return std::make_shared<const StoredKernel>(std::move(found));
}

std::shared_ptr<const StoredKernel> KernelStore::compile_and_store(const CompileRequest& request,
                                                                   const std::string& key, const Nvrtc& nvrtc) {
    const std::string what = fmt::format("{} for {}", readable(request.spec), request.arch.name());
    const CompiledKernel compiled = compile_kernel(request, nvrtc);
    ++counters_.compiles;
    log_.info(fmt::format("compiled {} in {:.2f} s: {} registers, {} bytes spilled", what, compiled.seconds,
                          compiled.resources.registers, compiled.resources.spill_bytes()));
    for (const std::string& note : compiled.serialization_notes) {
        log_.warning(fmt::format("{} will be slow: {}", what, note));
    }
    StoredKernel kernel{key, make_entry(request, key, compiled), false, false};
    kernel.stored = cache_.store(key, kernel.entry);
    auto shared = std::make_shared<const StoredKernel>(std::move(kernel));
    const std::lock_guard lock(mutex_);
    compile_seconds_.push_back(compiled.seconds);
    if (shared->stored) {
        unstored_.erase(key);
    } else {
        unstored_[key] = std::make_shared<const StoredKernel>(StoredKernel{key, shared->entry, true, false});
    }
    return shared;
}

}  // namespace smlora::jit
