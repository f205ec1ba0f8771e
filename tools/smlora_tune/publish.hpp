// Writing a file that others are to read, whole or not at all.
#pragma once

#include <filesystem>
#include <string>

namespace smlora::tool {

/// Throws Error{io} unless `file` may be written: a device or folder would be renamed over. `what` is the kind of file.
void require_plain_target(const std::string& what, const std::filesystem::path& file);

/// Puts `text` into the place of `file`, with the permissions that the umask leaves. A link there is replaced, not
/// followed. Throws Error{io}.
void publish(const std::string& what, const std::filesystem::path& file, const std::string& text);

}  // namespace smlora::tool
