#include "smlora_tune/publish.hpp"

#include "util/files.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <system_error>

namespace smlora::tool {

void require_plain_target(const std::string& what, const std::filesystem::path& file) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(file, error);
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
        throw Error(ErrorCode::io,
                    fmt::format("{} {}: expected a new file or a plain one, but it is a folder or a device", what,
                                file.string()));
    }
}

void publish(const std::string& what, const std::filesystem::path& file, const std::string& text) {
    require_plain_target(what, file);
    if (const int error = util::publish_file(util::real_file_system(), util::At(file), text, 0666); error != 0) {
        throw Error(ErrorCode::io, fmt::format("{} {}: {}", what, file.string(), util::describe_error(error)));
    }
}

}  // namespace smlora::tool
