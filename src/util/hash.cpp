#include "util/hash.hpp"

#include <cstdint>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace smlora::util {
namespace {

std::string canonical_bytes(XXH128_hash_t hash) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    return {reinterpret_cast<const char*>(canonical.digest), sizeof canonical.digest};
}

std::string hex_of(const std::string& bytes) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    text.reserve(bytes.size() * 2);
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

/// Eight little-endian bytes on every machine, so that a key does not depend on the machine that computes it.
std::string length_prefix(std::size_t length) {
    std::string bytes;
    for (unsigned shift = 0; shift < 64; shift += 8) {
        bytes += static_cast<char>((static_cast<std::uint64_t>(length) >> shift) & 0xff);
    }
    return bytes;
}

}  // namespace

std::string xxh128_bytes(std::string_view bytes) { return canonical_bytes(XXH3_128bits(bytes.data(), bytes.size())); }

std::string xxh128_hex(std::string_view bytes) { return hex_of(xxh128_bytes(bytes)); }

struct FieldHasher::State {
    XXH3_state_t xxh;

    void update(std::string_view bytes) { XXH3_128bits_update(&xxh, bytes.data(), bytes.size()); }
};

FieldHasher::FieldHasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }

FieldHasher::~FieldHasher() = default;

FieldHasher& FieldHasher::add(std::string_view name, std::string_view value) {
    for (const std::string_view part : {name, value}) {
        state_->update(length_prefix(part.size()));
        state_->update(part);
    }
    return *this;
}

std::string FieldHasher::hex() const { return hex_of(canonical_bytes(XXH3_128bits_digest(&state_->xxh))); }

}  // namespace smlora::util
