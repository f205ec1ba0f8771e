// What every function of the C ABI does at its edge: exceptions become statuses, pointers and struct sizes are checked.
#pragma once

#include <smlora/smlora.h>
#include <smlora/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>

namespace smlora::capi {

/// Turns the exception in flight into a status and keeps its message for smlora_last_error(). Call it in a handler.
smlora_status record_current_exception() noexcept;

/// Runs `body`; no exception leaves.
template <class Body>
smlora_status guarded(Body&& body) noexcept {
    try {
        body();
        return SMLORA_OK;
    } catch (...) {
        return record_current_exception();
    }
}

[[noreturn]] void throw_null(const char* name);
[[noreturn]] void throw_struct_size(const char* name, std::size_t expected, std::size_t got);
[[noreturn]] void throw_newer_struct(const char* name, std::size_t known, std::size_t got);

/// The object behind a required pointer. Throws Error{invalid_argument} that names it.
template <class T>
T& required(T* pointer, const char* name) {
    if (pointer == nullptr) throw_null(name);
    return *pointer;
}

/// The caller's struct as this library knows it. A caller compiled with a later header has a longer one: fine, as long
/// as the members that are unknown here are zero. A member added here later must default to what its absence meant, and
/// the smallest size accepted, `smallest`, must stay that of the first release: what the caller does not have is zero.
template <class Struct>
Struct read_struct(const Struct* caller, const char* name, std::size_t smallest = sizeof(Struct)) {
    static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, struct_size) == 0);
    const std::size_t size = required(caller, name).struct_size;
    if (size < smallest) throw_struct_size(name, smallest, size);
    const auto* bytes = reinterpret_cast<const unsigned char*>(caller);
    if (size > sizeof(Struct) &&
        std::any_of(bytes + sizeof(Struct), bytes + size, [](unsigned char byte) { return byte != 0; })) {
        throw_newer_struct(name, sizeof(Struct), size);
    }
    Struct known{};
    std::memcpy(&known, caller, std::min(size, sizeof(Struct)));
    return known;
}

/// Writes `defaults` into the caller's struct of `size` bytes, which may be shorter or longer than this library's.
template <class Struct>
void init_struct(Struct* caller, std::size_t size, Struct defaults) noexcept {
    static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, struct_size) == 0);
    if (caller == nullptr) return;
    defaults.struct_size = size;
    std::memset(static_cast<void*>(caller), 0, size);
    std::memcpy(static_cast<void*>(caller), &defaults, std::min(size, sizeof(Struct)));
}

/// A copy for the caller, freed by smlora_free_string. Throws std::bad_alloc.
[[nodiscard]] char* new_string(const std::string& text);

}  // namespace smlora::capi
