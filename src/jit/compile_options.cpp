#include "jit/compile_options.hpp"

namespace smlora::jit {

std::vector<std::string> compile_options(const gpu::Arch& arch, const CompilerVersion& compiler) {
    std::vector<std::string> options = {
        // A real architecture: NVRTC gives machine code, which any driver of the same major release loads. PTX would be
        // compiled again by each driver, and an older driver refuses it.
        "--gpu-architecture=" + arch.name(),
        "-std=c++20",
        "-default-device",
        // By default NVRTC raises the stack limit of the whole process while it compiles; another thread that starts a
        // thread or a process at that moment would get it too.
        "-modify-stack-limit=false",
        // Every header is passed in memory; without this a file of the same name in the current folder would be found.
        "--no-source-include",
        // Registers, spills and shared memory go into the log, so that they are known without a GPU.
        "-Xptxas=-v",
    };
    if (compiler >= CompilerVersion{12, 9, 0}) {
        // NVRTC would otherwise look into the driver's own cache, which loads libcuda and falsifies compile times.
        options.emplace_back("-no-cache");
        // Symbols of internal linkage get a name made from this instead of a random one: equal input, equal bytes.
        options.emplace_back("--frandom-seed=smlora");
    }
    return options;
}

}  // namespace smlora::jit
