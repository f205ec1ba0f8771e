#include "smlora_tune/gpu_names.hpp"

#include "gpu/known_gpus.hpp"
#include "smlora_tune/exit_code.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

namespace smlora::tool {
namespace {

std::set<std::string> words_of(const std::string& name) {
    std::set<std::string> words;
    std::string spaced = name;
    std::replace(spaced.begin(), spaced.end(), '-', ' ');  // "NVIDIA A100-SXM4-80GB"
    std::istringstream text(spaced);
    for (std::string word; text >> word;) {
        std::transform(word.begin(), word.end(), word.begin(),
                       [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
        words.insert(word);
    }
    return words;
}

}  // namespace

std::vector<gpu::DeviceFacts> gpus_here() {
    std::vector<gpu::DeviceFacts> gpus;
    try {
        for (int ordinal = 0; ordinal < gpu::device_count(); ++ordinal) gpus.push_back(gpu::device_facts(ordinal));
    } catch (const Error& error) {
        if (error.code() != ErrorCode::no_device && error.code() != ErrorCode::unsupported) throw;
    }
    return gpus;
}

std::string full_gpu_name(const std::string& text, const std::vector<gpu::DeviceFacts>& here) {
    std::set<std::string> names;
    for (const std::string_view name : gpu::known_gpus()) names.emplace(name);
    for (const gpu::DeviceFacts& gpu : here) names.insert(gpu.name);
    if (names.count(text) != 0) return text;
    const std::set<std::string> wanted = words_of(text);
    std::vector<std::string> found;
    for (const std::string& name : names) {
        const std::set<std::string> words = words_of(name);
        if (std::includes(words.begin(), words.end(), wanted.begin(), wanted.end())) found.push_back(name);
    }
    if (found.size() == 1 && !wanted.empty()) return found.front();
    throw UsageError(fmt::format("--gpu: expected one of \"{}\", got \"{}\"{}", fmt::join(names, "\", \""), text,
                                 found.size() > 1 ? ", which may be any of several" : ""));
}

}  // namespace smlora::tool
