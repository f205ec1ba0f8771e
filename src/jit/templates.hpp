// Kernel templates: CUDA source that is compiled at run time, embedded in the library or read from a folder.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace smlora::jit {

/// One file of kernel_templates/. Its quoted includes are spelled relative to that root, as in-memory headers need it.
struct Template {
    std::string name;  ///< relative to the root, with '/': "ptx/mma.cuh"
    std::string text;

    friend bool operator==(const Template&, const Template&) = default;
};

/// Where templates come from. A folder is read anew at each call, so that editing a template needs no restart.
class Templates {
 public:
    /// SMLORA_TEMPLATE_DIR if it is set and not empty, else the embedded ones.
    [[nodiscard]] static Templates from_environment();
    [[nodiscard]] static Templates embedded();
    explicit Templates(std::filesystem::path folder);

    /// Whether they can never change.
    [[nodiscard]] bool embedded_in_library() const { return folder_.empty(); }

    /// The text as it was written, or nothing if there is no such template.
    [[nodiscard]] std::optional<std::string> text(const std::string& name) const;

    /// The names of all templates, sorted.
    [[nodiscard]] std::vector<std::string> names() const;

    /// `root` and every template that it includes, directly or not, sorted by name. `#include "x"` is looked for beside
    /// the including file, then under the root; `#include <x>` belongs to the compiler and is left alone. An include
    /// inside #if counts whatever the condition. Throws Error{compile} naming the file and line of one that is missing.
    [[nodiscard]] std::vector<Template> closure(const std::string& root) const;

 private:
    Templates() = default;
    [[nodiscard]] std::string where() const;

    std::filesystem::path folder_;  ///< empty: embedded
};

/// 32 hexadecimal digits that change when a name or the bare source of a text changes, see bare_source(), and with
/// nothing else: comments and layout decide nothing of what a kernel does.
[[nodiscard]] std::string digest(const std::vector<Template>& templates);

}  // namespace smlora::jit
