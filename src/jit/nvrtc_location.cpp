#include "jit/nvrtc_location.hpp"

#include "cache/location.hpp"
#include "cache/trust.hpp"
#include "jit/elf.hpp"
#include "jit/library_trust.hpp"
#include "util/environment.hpp"
#include "util/hash.hpp"

#include <smlora/error.hpp>
#include <smlora/system.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <mutex>

namespace smlora {
namespace {

struct NamedFolders {
    std::mutex mutex;
    std::vector<std::filesystem::path> folders;
};

NamedFolders& named_folders() {
    // Never destroyed: another thread may still compile while static objects go.
    static auto& folders = *new NamedFolders;
    return folders;
}

}  // namespace

void set_nvrtc_folders(std::vector<std::filesystem::path> folders) {
    for (const std::filesystem::path& folder : folders) {
        if (!folder.is_absolute()) {
            throw Error(ErrorCode::invalid_argument,
                        fmt::format("folders: expected absolute paths, got \"{}\"", folder.string()));
        }
    }
    const std::lock_guard lock(named_folders().mutex);
    named_folders().folders = std::move(folders);
}

namespace jit {

namespace fs = std::filesystem;

const std::vector<std::string>& nvrtc_library_names() {
    static const auto& names = *new std::vector<std::string>{"libnvrtc.so.13", "libnvrtc.so.12"};
    return names;
}

std::vector<fs::path> nvrtc_folders() {
    std::vector<fs::path> folders;
    const std::string library_path = util::environment("LD_LIBRARY_PATH").value_or("");
    for (std::size_t begin = 0; begin < library_path.size();) {
        const std::size_t end = std::min(library_path.find(':', begin), library_path.size());
        const fs::path folder = library_path.substr(begin, end - begin);
        // To the loader an empty or relative item depends on the current folder; what kernels are compiled with must
        // not.
        if (folder.is_absolute()) {
            folders.push_back(folder);
        }
        begin = end + 1;
    }
    const auto add_toolkit = [&folders](const fs::path& toolkit) {
        folders.push_back(toolkit / "lib64");
        folders.push_back(toolkit / "lib");
    };
    for (const auto& toolkit : {util::environment("CUDA_HOME"), util::environment("CUDA_PATH")}) {
        if (toolkit) add_toolkit(*toolkit);
    }
    {
        const std::lock_guard lock(named_folders().mutex);
        folders.insert(folders.end(), named_folders().folders.begin(), named_folders().folders.end());
    }
    add_toolkit("/usr/local/cuda");
    for (const char* folder :
         {"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"}) {
        folders.emplace_back(folder);
    }
    return folders;
}

NvrtcSearch search_nvrtc(const std::vector<fs::path>& folders) {
    const cache::Writers trusted = cache::writers_of(util::real_file_system(), cache::own_file());
    NvrtcSearch search;
    for (const fs::path& folder : folders) {
        for (const std::string& name : nvrtc_library_names()) {
            const fs::path library = folder / name;
            std::error_code error;
            if (!fs::is_regular_file(library, error)) continue;
            if (std::optional<std::string> why = refusal_of_library(library, trusted)) {
                search.refused.push_back(std::move(*why));
            } else {
                search.found.push_back(library);
            }
        }
    }
    return search;
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

}  // namespace jit
}  // namespace smlora
