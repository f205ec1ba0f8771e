// Which compiler the kernels in the cache must be from: known without opening NVRTC whenever that can be.
//
// The build number of an NVRTC is part of every key, and only a compile tells it. So that a process with a warm cache
// neither opens the library (100 MB) nor compiles, the library's file is found without opening it (nvrtc_location.hpp)
// and its version is looked up by the build id in the notes that earlier processes left in the cache
// (compiler_memo.hpp). What is opened later is asked again: if it is another version than the note said, the note is
// corrected and the key made anew, so that a wrong note costs time and never gives a wrong kernel.
#pragma once

#include "cache/folder.hpp"
#include "jit/compiler_version.hpp"
#include "jit/nvrtc.hpp"

#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace smlora::util {
class Logger;
}  // namespace smlora::util

namespace smlora::jit {

/// How NVRTC is found and opened; a test puts its own in the place.
struct NvrtcAccess {
    std::function<std::vector<std::filesystem::path>()> locate;
    std::function<const Nvrtc&()> open;

    /// `log`, which must outlive it, hears of each library that is not loaded because of who may write to it.
    [[nodiscard]] static NvrtcAccess installed(util::Logger* log = nullptr);
};

/// Thread-safe.
class CompilerIdentity {
 public:
    /// Notes are read in every layer and written to `writable`. What the layers are read through must outlive this.
    CompilerIdentity(std::vector<cache::Layer> layers, std::optional<cache::Layer> writable,
                     NvrtcAccess access = NvrtcAccess::installed());

    /// The version of the NVRTC that a compile would use. Opens it only if no note tells. Nothing, with the reason in
    /// why_not(), if there is no NVRTC.
    [[nodiscard]] std::optional<CompilerVersion> installed();
    [[nodiscard]] std::string why_not() const;

    /// The NVRTC itself, for compiling; its version is what installed() says from now on. Throws Error{compile}.
    [[nodiscard]] const Nvrtc& open();

    /// Every version that the notes name, newest first.
    [[nodiscard]] std::vector<CompilerVersion> noted() const;

 private:
    std::vector<cache::Layer> layers_;
    std::optional<cache::Layer> writable_;
    NvrtcAccess access_;
    mutable std::mutex mutex_;
    std::optional<CompilerVersion> installed_;
    bool opened_ = false;
    std::string why_not_;
};

}  // namespace smlora::jit
