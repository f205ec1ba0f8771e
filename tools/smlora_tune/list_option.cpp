#include "smlora_tune/list_option.hpp"

#include "smlora_tune/number_checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

namespace smlora::tool {
namespace {

using Take = std::function<void(const std::string& item)>;

CLI::Option* add(CLI::App& app, const std::string& name, const std::string& description, const std::string& type,
                 const Take& take) {
    const auto take_all = [name, take](const std::vector<std::string>& texts) {
        for (const std::string& text : texts) {
            for (std::size_t begin = 0; begin <= text.size();) {
                const std::size_t end = std::min(text.find(',', begin), text.size());
                if (begin == end) {
                    throw CLI::ValidationError(name, fmt::format("expected items separated by commas, got '{}'", text));
                }
                take(text.substr(begin, end - begin));
                begin = end + 1;
            }
        }
    };
    return app.add_option_function<std::vector<std::string>>(name, take_all, description)
        ->type_name(type)
        ->allow_extra_args(false);
}

}  // namespace

CLI::Option* add_list(CLI::App& app, const std::string& name, std::vector<std::string>& list,
                      const std::string& description, const std::string& type) {
    return add(app, name, description, type, [&list](const std::string& item) { list.push_back(item); });
}

CLI::Option* add_list(CLI::App& app, const std::string& name, std::vector<std::int64_t>& list,
                      const std::string& description, const std::string& type, std::int64_t most) {
    return add(app, name, description, type, [&list, name, check = whole_number(0, most)](const std::string& item) {
        if (const std::string refusal = check(item); !refusal.empty()) throw CLI::ValidationError(name, refusal);
        list.push_back(std::stoll(item));
    });
}

}  // namespace smlora::tool
