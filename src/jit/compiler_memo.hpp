// A note in the cache of which compiler a library file is, so that a process with a warm cache need not open it.
//
// File v1/compilers of a layer, one line a library:
//     <identity> <version> <XXH3-128 of the two and the blank between them, hexadecimal>
// for example
//     build-id:65be0db342ad51a06876e71e210bccc5aa8322cf 13.0.88 4c1d..
// Lines with a wrong checksum are skipped: a wrong version would look for kernels under keys of another compiler.
#pragma once

#include "cache/folder.hpp"
#include "jit/compiler_version.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::jit {

using CompilerNotes = std::map<std::string, CompilerVersion>;  ///< by library identity

[[nodiscard]] CompilerNotes decode_compiler_notes(std::string_view text);
[[nodiscard]] std::string encode_compiler_notes(const CompilerNotes& notes);

/// The notes of a layer; empty if it has none.
[[nodiscard]] CompilerNotes read_compiler_notes(const cache::Layer& layer);

/// Adds a note to a layer. Two processes that add at once may lose one of two notes; a process that misses it asks its
/// NVRTC again. False if it cannot be written.
bool add_compiler_note(const cache::Layer& layer, const std::string& identity, const CompilerVersion& version);

}  // namespace smlora::jit
