#include "jit/compiler_memo.hpp"

#include "cache/layer.hpp"
#include "util/files.hpp"
#include "util/hash.hpp"

#include <algorithm>
#include <cstdint>

namespace smlora::jit {
namespace {

// A library's note is a hundred bytes and a machine has a handful of libraries.
constexpr std::uint64_t largest_file = 1 << 20;

}  // namespace

CompilerNotes decode_compiler_notes(std::string_view text) {
    CompilerNotes notes;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        const std::size_t first = line.find(' ');
        const std::size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
        if (second == std::string_view::npos || line.substr(second + 1) != util::xxh128_hex(line.substr(0, second))) {
            continue;
        }
        if (const auto version = compiler_version_from_number(line.substr(first + 1, second - first - 1))) {
            notes.insert_or_assign(std::string(line.substr(0, first)), *version);
        }
    }
    return notes;
}

std::string encode_compiler_notes(const CompilerNotes& notes) {
    std::string text;
    for (const auto& [identity, version] : notes) {
        const std::string note = identity + " " + version.number();
        text += note + " " + util::xxh128_hex(note) + "\n";
    }
    return text;
}

CompilerNotes read_compiler_notes(const cache::Layer& layer) {
    const std::filesystem::path file = cache::compilers_file(layer.root);
    std::string text;
    util::FileStatus status;
    // A wrong version leads to the kernels of another compiler, so notes need the trust that kernels need.
    const auto may_read = [&](const util::FileStatus& found) { return !cache::refusal_of_file(found, layer.kernels); };
    if (util::read_file(layer.files, cache::folder_of(layer, file).at(file), largest_file, text, status, may_read) !=
        0) {
        return {};
    }
    return decode_compiler_notes(text);
}

bool add_compiler_note(const cache::Layer& layer, const std::string& identity, const CompilerVersion& version) {
    CompilerNotes notes = read_compiler_notes(layer);
    notes.insert_or_assign(identity, version);
    const std::filesystem::path file = cache::compilers_file(layer.root);
    if (util::make_folders(layer.files, layer.root) != 0) return false;
    const cache::Folder folder = cache::folder_of(layer, file, cache::Folder::Missing::is_made);
    return util::publish_file(layer.files, folder.at(file), encode_compiler_notes(notes)) == 0;
}

}  // namespace smlora::jit
