#include "jit/nvrtc.hpp"

#include "jit/nvrtc_location.hpp"

#include <smlora/error.hpp>

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <mutex>

namespace smlora::jit {
namespace {

// Macros that only a compile can read, in the message of an assertion that fails: the front end is done with it in some
// 10 ms and nothing is generated.
constexpr const char* version_probe = R"(
#define SMLORA_TEXT_OF(x) #x
#define SMLORA_TEXT(x) SMLORA_TEXT_OF(x)
static_assert(false, "smlora-version " SMLORA_TEXT(__CUDACC_VER_MAJOR__) "." SMLORA_TEXT(__CUDACC_VER_MINOR__) "."
              SMLORA_TEXT(__CUDACC_VER_BUILD__) " end");
)";

std::string last_loader_error() {
    const char* text = dlerror();
    return text == nullptr ? "unknown error of the dynamic loader" : text;
}

}  // namespace

/// Owns an nvrtcProgram.
class Nvrtc::ProgramHandle {
 public:
    ProgramHandle(const Nvrtc& nvrtc, const std::string& source, const std::vector<Template>& headers) : nvrtc_(nvrtc) {
        std::vector<const char*> texts;
        std::vector<const char*> names;
        for (const Template& header : headers) {
            texts.push_back(header.text.c_str());
            names.push_back(header.name.c_str());
        }
        nvrtc.check(nvrtc.functions_.nvrtcCreateProgram(&program_, source.c_str(), "kernel.cu",
                                                        static_cast<int>(headers.size()), texts.data(), names.data()),
                    "nvrtcCreateProgram");
    }
    ~ProgramHandle() { nvrtc_.functions_.nvrtcDestroyProgram(&program_); }
    ProgramHandle(const ProgramHandle&) = delete;
    ProgramHandle& operator=(const ProgramHandle&) = delete;

    [[nodiscard]] nvrtcProgram get() const { return program_; }

 private:
    const Nvrtc& nvrtc_;
    nvrtcProgram program_ = nullptr;
};

const Nvrtc& Nvrtc::instance() {
    static std::mutex mutex;
    // Never destroyed: another thread may still compile while static objects go.
    static const Nvrtc* opened = nullptr;
    const std::lock_guard lock(mutex);
    if (opened != nullptr) {
        return *opened;
    }
    const NvrtcSearch search = search_nvrtc();
    std::vector<std::string> candidates;
    for (const std::filesystem::path& located : search.found) {
        candidates.push_back(located.string());
    }
    std::string tried;
    for (const std::string& refusal : search.refused) {
        tried += fmt::format("\n  {}", refusal);
    }
    // The loader looks into LD_LIBRARY_PATH, too, and would take what was refused there.
    if (search.refused.empty()) {
        candidates.insert(candidates.end(), nvrtc_library_names().begin(), nvrtc_library_names().end());
    }
    for (const std::string& candidate : candidates) {
        try {
            opened = new Nvrtc(candidate);
            return *opened;
        } catch (const Error& error) {
            tried += fmt::format("\n  {}", error.what());
        }
    }
    std::vector<std::string> folders;
    for (const std::filesystem::path& folder : nvrtc_folders()) {
        folders.push_back(folder.string());
    }
    throw Error(ErrorCode::compile,
                fmt::format("NVRTC, which compiles the kernels, cannot be opened. Looked for {} in {}{}:{}",
                            fmt::join(nvrtc_library_names(), " and "), fmt::join(folders, ", "),
                            search.refused.empty() ? ", then asked the dynamic loader" : "", tried));
}

Nvrtc::Nvrtc(const std::string& library) {
    // RTLD_LOCAL: other libraries in the process may bring an NVRTC of another release.
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        throw Error(ErrorCode::compile, fmt::format("{}: {}", library, last_loader_error()));
    }
    resolve(handle, library);
    Dl_info where{};
    const bool known =
        dladdr(reinterpret_cast<void*>(functions_.nvrtcVersion), &where) != 0 && where.dli_fname != nullptr;
    file_ = known ? where.dli_fname : library;

    int count = 0;
    check(functions_.nvrtcGetNumSupportedArchs(&count), "nvrtcGetNumSupportedArchs");
    archs_.resize(static_cast<std::size_t>(count));
    check(functions_.nvrtcGetSupportedArchs(archs_.data()), "nvrtcGetSupportedArchs");
    std::sort(archs_.begin(), archs_.end());
    version_ = probe_version();
}

void Nvrtc::resolve(void* handle, const std::string& library) {
#define SMLORA_RESOLVE(function)                                                                       \
    functions_.function = reinterpret_cast<decltype(functions_.function)>(dlsym(handle, #function));   \
    if (functions_.function == nullptr) {                                                              \
        dlclose(handle);                                                                               \
        throw Error(ErrorCode::compile, fmt::format("{}: it has no function {}", library, #function)); \
    }
    SMLORA_NVRTC_FUNCTIONS(SMLORA_RESOLVE)
#undef SMLORA_RESOLVE
}

void Nvrtc::check(nvrtcResult result, const char* call) const {
    if (result != NVRTC_SUCCESS) {
        throw Error(ErrorCode::compile,
                    fmt::format("{}: {} from {}", call, functions_.nvrtcGetErrorString(result), file_.string()));
    }
}

std::string Nvrtc::log_of(const ProgramHandle& program) const {
    std::size_t size = 0;
    check(functions_.nvrtcGetProgramLogSize(program.get(), &size), "nvrtcGetProgramLogSize");
    std::string log(size, '\0');
    check(functions_.nvrtcGetProgramLog(program.get(), log.data()), "nvrtcGetProgramLog");
    // The size counts the terminating zero.
    log.resize(log.find('\0') == std::string::npos ? log.size() : log.find('\0'));
    return log;
}

CompilerVersion Nvrtc::probe_version() const {
    const ProgramHandle program(*this, version_probe, {});
    functions_.nvrtcCompileProgram(program.get(), 0, nullptr);
    const std::string log = log_of(program);
    constexpr std::string_view mark = "smlora-version ";
    const std::size_t begin = log.find(mark);
    const std::size_t end = begin == std::string::npos ? begin : log.find(" end", begin);
    std::optional<CompilerVersion> version;
    if (end != std::string::npos) {
        version =
            compiler_version_from_number(std::string_view(log).substr(begin + mark.size(), end - begin - mark.size()));
    }
    if (!version) {
        throw Error(ErrorCode::compile,
                    fmt::format("{}: its build number is not in the log of a probe:\n{}", file_.string(), log));
    }
    return *version;
}

Binary Nvrtc::compile(const Program& input, const std::string& what) const {
    const auto begin = std::chrono::steady_clock::now();
    const ProgramHandle program(*this, input.source, input.headers);
    std::vector<const char*> options;
    for (const std::string& option : input.options) {
        options.push_back(option.c_str());
    }
    const nvrtcResult result =
        functions_.nvrtcCompileProgram(program.get(), static_cast<int>(options.size()), options.data());
    Binary binary;
    binary.log = log_of(program);
    if (result != NVRTC_SUCCESS) {
        throw Error(ErrorCode::compile, fmt::format("{}: {} by {} ({})\noptions: {}\nlog:\n{}", what,
                                                    functions_.nvrtcGetErrorString(result), version_.name(),
                                                    file_.string(), fmt::join(input.options, " "), binary.log));
    }
    std::size_t size = 0;
    check(functions_.nvrtcGetCUBINSize(program.get(), &size), "nvrtcGetCUBINSize");
    binary.cubin.resize(size);
    check(functions_.nvrtcGetCUBIN(program.get(), binary.cubin.data()), "nvrtcGetCUBIN");
    binary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return binary;
}

}  // namespace smlora::jit
