#include "jit/templates.hpp"

#include "jit/bare_source.hpp"
#include "jit/embedded_templates.hpp"
#include "jit/include_lines.hpp"
#include "util/environment.hpp"
#include "util/hash.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

namespace smlora::jit {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> read_file(const fs::path& path) {
    std::error_code error;
    if (!fs::is_regular_file(path, error)) {
        return std::nullopt;
    }
    std::ifstream stream(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    if (!stream) {
        return std::nullopt;
    }
    return text;
}

/// Nothing if the name would leave the root.
std::optional<std::string> normalised(const fs::path& name) {
    const std::string text = name.lexically_normal().generic_string();
    if (text.empty() || text == "." || text.starts_with("..") || name.is_absolute()) {
        return std::nullopt;
    }
    return text;
}

}  // namespace

Templates Templates::from_environment() {
    const std::optional<std::string> folder = util::environment("SMLORA_TEMPLATE_DIR");
    return folder ? Templates(fs::path(*folder)) : embedded();
}

Templates Templates::embedded() { return {}; }

Templates::Templates(fs::path folder) : folder_(std::move(folder)) {
    std::error_code error;
    if (!fs::is_directory(folder_, error)) {
        throw Error(ErrorCode::io, fmt::format("SMLORA_TEMPLATE_DIR: expected a folder, got \"{}\"", folder_.string()));
    }
}

std::string Templates::where() const {
    return folder_.empty() ? std::string("the embedded templates") : folder_.string();
}

std::optional<std::string> Templates::text(const std::string& name) const {
    const std::optional<std::string> inside = normalised(name);
    if (!inside) {
        return std::nullopt;
    }
    if (!folder_.empty()) {
        return read_file(folder_ / *inside);
    }
    for (const EmbeddedTemplate& candidate : embedded_templates()) {
        if (candidate.name == *inside) {
            return std::string(candidate.text);
        }
    }
    return std::nullopt;
}

std::vector<std::string> Templates::names() const {
    std::vector<std::string> names;
    if (folder_.empty()) {
        for (const EmbeddedTemplate& candidate : embedded_templates()) {
            names.emplace_back(candidate.name);
        }
    } else {
        for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder_)) {
            const fs::path extension = entry.path().extension();
            if (entry.is_regular_file() && (extension == ".cuh" || extension == ".h")) {
                names.push_back(entry.path().lexically_relative(folder_).generic_string());
            }
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::vector<Template> Templates::closure(const std::string& root) const {
    if (!text(root)) {
        throw Error(ErrorCode::compile, fmt::format("kernel template \"{}\" is not in {}", root, where()));
    }
    std::map<std::string, std::string> found;
    std::vector<std::string> pending{root};
    while (!pending.empty()) {
        const std::string name = std::move(pending.back());
        pending.pop_back();
        if (found.contains(name)) {
            continue;
        }
        const std::optional<std::string> original = text(name);
        if (!original) {
            // Seen a moment ago: the folder is being edited.
            throw Error(ErrorCode::compile, fmt::format("kernel template \"{}\" disappeared from {}", name, where()));
        }

        // Includes are rewritten to their names from the root: NVRTC finds an in-memory header only under the very
        // name it was given, and knows nothing of the folder of the file that includes it.
        std::string rewritten;
        std::size_t copied = 0;
        for (const IncludeLine& include : quoted_includes(*original)) {
            const std::optional<std::string> beside = normalised(fs::path(name).parent_path() / include.name);
            const std::optional<std::string> from_root = normalised(include.name);
            std::string target;
            if (beside && text(*beside)) {
                target = *beside;
            } else if (from_root && text(*from_root)) {
                target = *from_root;
            } else {
                throw Error(ErrorCode::compile,
                            fmt::format("kernel template \"{}\", line {}: \"{}\" is neither in its folder nor in {}",
                                        name, include.line, include.name, where()));
            }
            rewritten.append(*original, copied, include.offset - copied);
            rewritten += target;
            copied = include.offset + include.name.size();
            pending.push_back(target);
        }
        rewritten.append(*original, copied, std::string::npos);
        found.emplace(name, std::move(rewritten));
    }

    std::vector<Template> closure;
    for (auto& [name, text] : found) {
        closure.push_back({name, std::move(text)});
    }
    return closure;
}

std::string digest(const std::vector<Template>& templates) {
    util::FieldHasher hasher;
    for (const Template& item : templates) {
        hasher.add("name", item.name).add("source", bare_source(item.text));
    }
    return hasher.hex();
}

}  // namespace smlora::jit
