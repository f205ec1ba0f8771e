// Kernel entries of the cache, and the cubins in them.
#include "harness.hpp"

#include "cache/entry.hpp"
#include "jit/elf.hpp"
#include "util/hash.hpp"

namespace smlora::fuzz {
namespace {

void read(std::string_view bytes) {
    std::string why;
    const std::optional<cache::KernelEntry> entry = cache::decode(bytes, why);
    if (!entry) return require_message(why);
    require(why.empty(), "what is taken has no fault", why);
    const std::optional<cache::KernelEntry> again = cache::decode(cache::encode(*entry), why);
    require(again && again->metadata == entry->metadata && again->cubin == entry->cubin, "an entry is stored as it is");
    if (!jit::find_kernel(entry->cubin, "kernel", why)) require_message(why);
    static_cast<void>(jit::machine_code_digest(entry->cubin));
}

/// With the hash that its content has, which no change hits by chance.
std::string with_hash(std::string_view bytes) {
    constexpr std::size_t hash_bytes = 16;
    if (bytes.size() < hash_bytes) return std::string(bytes);
    const std::string_view content = bytes.substr(0, bytes.size() - hash_bytes);
    return std::string(content) + util::xxh128_bytes(content);
}

}  // namespace
}  // namespace smlora::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    smlora::fuzz::read(smlora::fuzz::text_of(bytes, size));
    smlora::fuzz::read(smlora::fuzz::with_hash(smlora::fuzz::text_of(bytes, size)));
    return 0;
}
