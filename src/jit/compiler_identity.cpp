#include "jit/compiler_identity.hpp"

#include "jit/compiler_memo.hpp"
#include "jit/nvrtc_location.hpp"
#include "util/log.hpp"

#include <smlora/error.hpp>

#include <functional>
#include <set>

namespace smlora::jit {

NvrtcAccess NvrtcAccess::installed(util::Logger* log) {
    const auto locate = [log] {
        NvrtcSearch search = search_nvrtc();
        if (log != nullptr) {
            for (const std::string& refusal : search.refused) log->warning_once(refusal, "NVRTC: " + refusal);
        }
        return std::move(search.found);
    };
    return {locate, []() -> const Nvrtc& { return Nvrtc::instance(); }};
}

CompilerIdentity::CompilerIdentity(std::vector<cache::Layer> layers, std::optional<cache::Layer> writable,
                                   NvrtcAccess access)
    : layers_(std::move(layers)), writable_(std::move(writable)), access_(std::move(access)) {}

std::optional<CompilerVersion> CompilerIdentity::installed() {
    {
        const std::lock_guard lock(mutex_);
        if (installed_) {
            return installed_;
        }
        const std::vector<std::filesystem::path> libraries = access_.locate();
        const std::optional<std::string> identity =
            libraries.empty() ? std::nullopt : library_identity(libraries.front());
        if (identity) {
            for (const cache::Layer& layer : layers_) {
                const CompilerNotes notes = read_compiler_notes(layer);
                if (const auto note = notes.find(*identity); note != notes.end()) {
                    installed_ = note->second;
                    return installed_;
                }
            }
        }
    }
    try {
        return open().version();
    } catch (const Error& error) {
        const std::lock_guard lock(mutex_);
        why_not_ = error.what();
        return std::nullopt;
    }
}

std::string CompilerIdentity::why_not() const {
    const std::lock_guard lock(mutex_);
    return why_not_;
}

const Nvrtc& CompilerIdentity::open() {
    const Nvrtc& nvrtc = access_.open();
    const std::lock_guard lock(mutex_);
    installed_ = nvrtc.version();
    if (!opened_ && writable_) {
        const std::optional<std::string> identity = library_identity(nvrtc.file());
        if (identity) {
            const CompilerNotes notes = read_compiler_notes(*writable_);
            const auto note = notes.find(*identity);
            if (note == notes.end() || note->second != nvrtc.version()) {
                add_compiler_note(*writable_, *identity, nvrtc.version());
            }
        }
    }
    opened_ = true;
    return nvrtc;
}

std::vector<CompilerVersion> CompilerIdentity::noted() const {
    std::set<CompilerVersion, std::greater<>> versions;
    for (const cache::Layer& layer : layers_) {
        for (const auto& [identity, version] : read_compiler_notes(layer)) {
            versions.insert(version);
        }
    }
    return {versions.begin(), versions.end()};
}

}  // namespace smlora::jit
