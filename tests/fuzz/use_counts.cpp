// What processes did with a layer.
#include "harness.hpp"

#include "cache/use_counts.hpp"

namespace smlora::fuzz {
namespace {

using cache::UseCounts;

void read(std::string_view text) {
    UseCounts sum;
    for (std::string_view rest = text; rest.find('\n') != std::string_view::npos;) {
        const std::string_view line = rest.substr(0, rest.find('\n') + 1);
        rest.remove_prefix(line.size());
        const UseCounts counts = cache::decode_use_counts(line);
        require(cache::decode_use_counts(cache::encode_use_counts(counts)) == counts,
                "a line is written as it was read", line);
        for (const auto count : {&UseCounts::hits, &UseCounts::misses, &UseCounts::evictions}) {
            require(counts.*count <= UINT64_MAX - sum.*count, "no sum overflows", line);
            sum.*count += counts.*count;
        }
    }
    require(cache::decode_use_counts(text) == sum, "the sum is that of the lines", text);
}

}  // namespace
}  // namespace smlora::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    smlora::fuzz::read(smlora::fuzz::text_of(bytes, size));
    return 0;
}
