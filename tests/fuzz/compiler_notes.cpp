// The notes of which compiler a library is.
#include "harness.hpp"

#include "jit/compiler_memo.hpp"
#include "util/hash.hpp"

namespace smlora::fuzz {
namespace {

void read(std::string_view text) {
    const jit::CompilerNotes notes = jit::decode_compiler_notes(text);
    require(jit::decode_compiler_notes(jit::encode_compiler_notes(notes)) == notes,
            "notes are written as they were read");
}

/// Each line with the checksum that its content has, which no change hits by chance.
std::string with_checksums(std::string_view text) {
    std::string result;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        const std::string_view note = line.substr(0, line.rfind(' '));
        result.append(note).append(" ").append(util::xxh128_hex(note)).append("\n");
    }
    return result;
}

}  // namespace
}  // namespace smlora::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    smlora::fuzz::read(smlora::fuzz::text_of(bytes, size));
    smlora::fuzz::read(smlora::fuzz::with_checksums(smlora::fuzz::text_of(bytes, size)));
    return 0;
}
