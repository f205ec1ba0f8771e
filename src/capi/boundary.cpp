#include "capi/boundary.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <exception>
#include <new>

namespace smlora::capi {
namespace {

std::string& last_message() {
    thread_local std::string message;
    return message;
}

/// Keeps `text`, or as much of the truth as memory allows.
smlora_status record(smlora_status status, const char* text) noexcept {
    try {
        last_message() = text;
    } catch (...) {
        last_message().clear();
    }
    return status;
}

}  // namespace

smlora_status record_current_exception() noexcept {
    try {
        throw;
    } catch (const Error& error) {
        return record(static_cast<smlora_status>(error.code()), error.what());
    } catch (const std::bad_alloc&) {
        return record(SMLORA_OUT_OF_MEMORY, "host memory ran out");
    } catch (const std::exception& error) {
        return record(SMLORA_INTERNAL, error.what());
    } catch (...) {
        return record(SMLORA_INTERNAL, "an exception of unknown type");
    }
}

void throw_null(const char* name) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: expected a pointer, got null", name));
}

void throw_struct_size(const char* name, std::size_t expected, std::size_t got) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}.struct_size: expected at least {}, got {}; start the struct with its init function",
                            name, expected, got));
}

void throw_newer_struct(const char* name, std::size_t known, std::size_t got) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: its caller was compiled with a later smlora.h ({} bytes) and has set a member that this "
                    "library, version {}, does not know ({} bytes)",
                    name, got, smlora_version(), known));
}

char* new_string(const std::string& text) {
    auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
    if (copy == nullptr) throw std::bad_alloc();
    std::memcpy(copy, text.c_str(), text.size() + 1);
    return copy;
}

}  // namespace smlora::capi

extern "C" {

const char* smlora_last_error(void) { return smlora::capi::last_message().c_str(); }

const char* smlora_status_name(smlora_status status) {
    switch (status) {
        case SMLORA_OK:
            return "ok";
        case SMLORA_INVALID_ARGUMENT:
            return "invalid_argument";
        case SMLORA_UNSUPPORTED:
            return "unsupported";
        case SMLORA_NO_DEVICE:
            return "no_device";
        case SMLORA_CUDA:
            return "cuda";
        case SMLORA_COMPILE:
            return "compile";
        case SMLORA_IO:
            return "io";
        case SMLORA_NOT_READY:
            return "not_ready";
        case SMLORA_INTERNAL:
            return "internal";
        case SMLORA_OUT_OF_MEMORY:
            return "out_of_memory";
        case SMLORA_JIT_OFF:
            return "jit_off";
        case SMLORA_FORKED:
            return "forked";
        default:
            return "unknown";
    }
}

void smlora_free_string(char* text) { std::free(text); }

}  // extern "C"
