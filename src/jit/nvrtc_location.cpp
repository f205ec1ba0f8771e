#include "jit/nvrtc_location.hpp"

#include "jit/elf.hpp"
#include "util/hash.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>

namespace smlora::jit {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

const std::vector<std::string>& nvrtc_library_names() {
    static const std::vector<std::string> names = {"libnvrtc.so.13", "libnvrtc.so.12"};
    return names;
}

std::vector<fs::path> nvrtc_folders() {
    std::vector<fs::path> folders;
    const std::string library_path = environment("LD_LIBRARY_PATH");
    for (std::size_t begin = 0; begin < library_path.size();) {
        const std::size_t end = std::min(library_path.find(':', begin), library_path.size());
        // The loader reads an empty item as the current folder; a library for everybody is not looked for there.
        if (end > begin) {
            folders.emplace_back(library_path.substr(begin, end - begin));
        }
        begin = end + 1;
    }
    for (const std::string& toolkit :
         {environment("CUDA_HOME"), environment("CUDA_PATH"), std::string("/usr/local/cuda")}) {
        if (!toolkit.empty()) {
            folders.push_back(fs::path(toolkit) / "lib64");
            folders.push_back(fs::path(toolkit) / "lib");
        }
    }
    for (const char* folder :
         {"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"}) {
        folders.emplace_back(folder);
    }
    return folders;
}

std::optional<fs::path> locate_nvrtc(const std::vector<fs::path>& folders, const std::vector<std::string>& names) {
    for (const std::string& name : names) {
        for (const fs::path& folder : folders) {
            std::error_code error;
            if (fs::is_regular_file(folder / name, error)) {
                return folder / name;
            }
        }
    }
    return std::nullopt;
}

std::optional<std::string> library_identity(const fs::path& library) {
    if (const std::optional<std::string> id = elf_build_id(library)) {
        return "build-id:" + *id;
    }
    std::error_code error;
    const fs::path path = fs::canonical(library, error);
    const std::uintmax_t size = error ? 0 : fs::file_size(path, error);
    const fs::file_time_type changed = error ? fs::file_time_type() : fs::last_write_time(path, error);
    if (error) {
        return std::nullopt;
    }
    return "file:" + util::FieldHasher()
                         .add("path", path.string())
                         .add("size", std::to_string(size))
                         .add("changed", std::to_string(changed.time_since_epoch().count()))
                         .hex();
}

}  // namespace smlora::jit
