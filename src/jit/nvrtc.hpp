// NVRTC, opened when first needed.
#pragma once

#include "jit/compiler_version.hpp"
#include "jit/templates.hpp"

#include <nvrtc.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

// The one list of NVRTC functions in use; everything else about the loader is generated from it.
#define SMLORA_NVRTC_FUNCTIONS(X) \
    X(nvrtcVersion)               \
    X(nvrtcGetErrorString)        \
    X(nvrtcGetNumSupportedArchs)  \
    X(nvrtcGetSupportedArchs)     \
    X(nvrtcCreateProgram)         \
    X(nvrtcDestroyProgram)        \
    X(nvrtcCompileProgram)        \
    X(nvrtcGetCUBINSize)          \
    X(nvrtcGetCUBIN)              \
    X(nvrtcGetProgramLogSize)     \
    X(nvrtcGetProgramLog)

namespace smlora::jit {

/// What NVRTC is given.
struct Program {
    std::string source;
    std::vector<Template> headers;     ///< passed in memory: there is no include path
    std::vector<std::string> options;  ///< compile_options()
};

/// What it gives back when it succeeds.
struct Binary {
    std::string cubin;
    std::string log;  ///< with ptxas's report, because of -Xptxas=-v
    double seconds = 0;
};

/// An opened NVRTC. Thread-safe; compiles of several threads run at once.
///
/// A process must not fork (without exec) while a compile runs: the child inherits locks that no thread of it releases.
/// Nothing in smlora forks.
class Nvrtc {
 public:
    /// The process's NVRTC, opened by the first call that succeeds: the library that search_nvrtc() finds, else, where
    /// it refused none, whatever the dynamic loader has for libnvrtc.so.13 or .12. It stays open until the process
    /// ends. Throws Error{compile} that lists everything that was tried; a later call tries again.
    [[nodiscard]] static const Nvrtc& instance();

    /// Opens `library`, a path or a name for the dynamic loader. Throws Error{compile}.
    explicit Nvrtc(const std::string& library);

    /// The file that was opened.
    [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }

    /// With the build number, which only a compile tells; asked once.
    [[nodiscard]] const CompilerVersion& version() const noexcept { return version_; }

    /// 80, 90, ..: targets without their suffix, ascending.
    [[nodiscard]] const std::vector<int>& archs() const noexcept { return archs_; }

    /// Throws Error{compile}, whose message begins with `what` (the kernel, for people) and has the options and the
    /// log.
    [[nodiscard]] Binary compile(const Program& program, const std::string& what) const;

 private:
    struct Functions {
#define SMLORA_DECLARE(function) decltype(&::function) function = nullptr;
        SMLORA_NVRTC_FUNCTIONS(SMLORA_DECLARE)
#undef SMLORA_DECLARE
    };
    class ProgramHandle;

    void resolve(void* handle, const std::string& library);
    void check(nvrtcResult result, const char* call) const;
    [[nodiscard]] CompilerVersion probe_version() const;
    [[nodiscard]] std::string log_of(const ProgramHandle& program) const;

    Functions functions_;
    std::filesystem::path file_;
    CompilerVersion version_;
    std::vector<int> archs_;
};

}  // namespace smlora::jit
