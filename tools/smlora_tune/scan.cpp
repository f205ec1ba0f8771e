#include "smlora_tune/scan.hpp"

#include "util/hash.hpp"

#include <algorithm>

namespace smlora::tool {
namespace {

std::size_t count_non_finite(DType dtype, const std::vector<std::byte>& bytes, std::size_t count) {
    return workload::with_codec(dtype, [&](auto codec) {
        typename decltype(codec)::Bits bits{};
        std::size_t found = 0;
        for (std::size_t i = 0; i < count; ++i) {
            std::memcpy(&bits, bytes.data() + i * sizeof bits, sizeof bits);
            found += codec.is_finite(bits) ? 0U : 1U;
        }
        return found;
    });
}

}  // namespace

Scan scan(const workload::Array& array, std::size_t elements) {
    // 64 MiB at a time: outputs may be larger than the memory of the host.
    constexpr std::size_t piece = std::size_t{64} << 20U;
    const std::size_t size = size_of(array.dtype());
    const std::size_t bytes = elements * size;
    std::vector<std::byte> host(std::min(piece, bytes));
    util::FieldHasher hasher;
    Scan result;
    for (std::size_t begin = 0; begin < bytes; begin += piece) {
        const std::size_t part = std::min(piece, bytes - begin);
        array.memory().copy_to_host(host.data(), part, array.first_byte() + begin);
        hasher.add("bytes", {reinterpret_cast<const char*>(host.data()), part});
        result.non_finite += count_non_finite(array.dtype(), host, part / size);
    }
    result.hash = hasher.hex();
    return result;
}

}  // namespace smlora::tool
