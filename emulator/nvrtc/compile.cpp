#include "nvrtc/compile.hpp"

#include "emulator_configuration.hpp"
#include "nvrtc/image.hpp"
#include "nvrtc/rewrite.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <system_error>

extern char** environ;

namespace smlora::emulator {
namespace {

namespace fs = std::filesystem;

/// SMLORA_EMULATOR_KEEP names a folder in which everything that was compiled stays.
class Folder {
 public:
    Folder() {
        const char* const keep = std::getenv("SMLORA_EMULATOR_KEEP");
        kept_ = keep != nullptr;
        std::string path = ((kept_ ? fs::path(keep) : fs::temp_directory_path()) / "smlora-emulator-XXXXXX").string();
        if (::mkdtemp(path.data()) == nullptr) {
            throw std::system_error(errno, std::generic_category(), "mkdtemp " + path);
        }
        path_ = path;
    }
    ~Folder() {
        std::error_code ignored;
        if (!kept_) fs::remove_all(path_, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    [[nodiscard]] const fs::path& path() const { return path_; }
    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((path_ / name).parent_path());
        std::ofstream(path_ / name, std::ios::binary) << text;
    }
    [[nodiscard]] std::string read(const std::string& name) const {
        std::ostringstream text;
        text << std::ifstream(path_ / name, std::ios::binary).rdbuf();
        return text.str();
    }

 private:
    fs::path path_;
    bool kept_ = false;
};

/// Runs a program with its messages in `log`; true if it succeeds.
bool run(const std::vector<std::string>& command, const fs::path& log) {
    std::vector<char*> arguments;
    for (const std::string& item : command) arguments.push_back(const_cast<char*>(item.c_str()));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t process = 0;
    const int error = posix_spawnp(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::system_error(error, std::generic_category(), command[0]);
    int status = 0;
    while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::vector<std::string> command_line(const fs::path& folder, const std::string& arch) {
    const fs::path emulator(SMLORA_EMULATOR_FOLDER);
    std::string macro = arch.substr(3);
    const bool specific = !macro.empty() && macro.back() == 'a';
    if (specific) macro.pop_back();
    std::vector<std::string> command = {
        SMLORA_EMULATOR_COMPILER, "-std=c++20", "-w", "-pipe", "-shared", "-Wl,-Bsymbolic", "-fPIC",
        "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-nostdlib", "-nostartfiles",
        // Device code reads what it likes as what it likes.
        "-fno-strict-aliasing", "-ffp-contract=off",
        // Names in reports as they are in the product.
        fmt::format("-ffile-prefix-map={}/=", folder.string()), fmt::format("-D__CUDA_ARCH__={}0", macro),
        fmt::format("-D__CUDACC_VER_MAJOR__={}", version().major),
        fmt::format("-D__CUDACC_VER_MINOR__={}", version().minor),
        fmt::format("-D__CUDACC_VER_BUILD__={}", version().build), "-D__CUDACC__", "-D__CUDACC_RTC__", "-include",
        (emulator / "device/cuda.hpp").string(), "-I", folder.string(), "-I", emulator.string(), "-o",
        (folder / "kernel.so").string(), "-x", "c++", (folder / "kernel.cu").string(), "-lm", "-lgcc"};
    const char* const run = std::getenv("SMLORA_EMULATOR_RUN");
    if (run == nullptr || std::string_view(run) != "0") {
        // A call before each access: device/access_hooks.hpp.
        for (const char* option : {"-g1", "-O1", "-fsanitize=kernel-address", "--param=asan-stack=0",
                                   "--param=asan-globals=0", "--param=asan-instrumentation-with-call-threshold=0"}) {
            command.insert(command.begin() + 1, option);
        }
    }
    if (specific) command.insert(command.begin() + 1, fmt::format("-D__CUDA_ARCH_FEAT_SM{}_ALL", macro));
    return command;
}

/// As ptxas words it; the numbers are what a kernel without problems has.
std::string report(const std::string& kernel, const std::string& arch) {
    return fmt::format(
        "ptxas info    : Compiling entry function '{0}' for '{1}'\n"
        "ptxas info    : Function properties for {0}\n"
        "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 32 registers, used 1 barriers\n",
        kernel, arch);
}

}  // namespace

Version version() { return {13, 0, SMLORA_EMULATOR_BUILD}; }

Result compile(const Source& source) {
    const Folder folder;
    for (const auto& [name, text] : source.headers) {
        // Those with PTX in them are the emulator's, found beside its other headers.
        if (!name.starts_with("ptx/")) folder.write(name, rewrite_shared(text));
    }
    std::string text = rewrite_shared(source.text);
    const std::vector<KernelDeclaration> kernels = kernels_of(source.text);
    text += "\n#include \"device/entry.hpp\"\n";
    for (const KernelDeclaration& kernel : kernels) {
        text += fmt::format("SMLORA_EMULATOR_KERNEL({}, {}, {})\n", kernel.name, kernel.most_threads, kernel.cluster);
    }
    folder.write("kernel.cu", text);

    Result result;
    result.compiled = run(command_line(folder.path(), source.arch), folder.path() / "log");
    result.log = folder.read("log");
    if (!result.compiled) return result;
    for (const KernelDeclaration& kernel : kernels) result.log += report(kernel.name, source.arch);
    result.image = folder.read("kernel.so");
    dress(result.image);
    return result;
}

}  // namespace smlora::emulator
