#include "cpu/decode.hpp"
#include "cpu/operations.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace smlora::cpu {

std::uint8_t arrange_scales(util::ThreadPool& threads, const ArrangeScalesArgs& args) {
    const Weight& weight = args.W;
    const auto* const from = static_cast<const std::uint8_t*>(weight.scales.data);
    auto* const to = static_cast<std::uint8_t*>(args.out.data);
    const std::int64_t blocks = weight.columns / weight.block;
    const std::int64_t elements = args.out.shape[1] * args.out.shape[2] * args.out.shape[3];
    std::atomic<std::uint8_t> largest = 0;
    threads.parallel_for(weight.E, [&](std::int64_t expert) {
        std::memset(to + expert * elements, 0, static_cast<std::size_t>(elements));
        std::uint8_t most = 0;
        for (std::int64_t row = 0; row < weight.rows; ++row) {
            for (std::int64_t block = 0; block < blocks; ++block) {
                const std::uint8_t scale = from[(expert * weight.rows + row) * blocks + block];
                to[arranged_index(weight, expert, row, block)] = scale;
                most = std::max(most, scale);
            }
        }
        std::uint8_t known = largest;
        while (known < most && !largest.compare_exchange_weak(known, most)) {
        }
    });
    return largest;
}

}  // namespace smlora::cpu
