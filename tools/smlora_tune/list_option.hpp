// Options that take a list: --tokens 1024,4096. CLI11's own lists pass over empty items.
#pragma once

#include <CLI/App.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace smlora::tool {

/// Items are separated by commas, and the option may be repeated. "--tokens: expected items separated by commas, got
/// '1,,2'" if one is empty. Shown as `type` in the help.
CLI::Option* add_list(CLI::App& app, const std::string& name, std::vector<std::string>& list,
                      const std::string& description, const std::string& type);
/// The same of whole numbers from 0 to `most`.
CLI::Option* add_list(CLI::App& app, const std::string& name, std::vector<std::int64_t>& list,
                      const std::string& description, const std::string& type, std::int64_t most);

}  // namespace smlora::tool
