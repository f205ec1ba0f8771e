#include "cpu/operations.hpp"
#include "scale_order.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace smlora::cpu {
namespace {

/// Scale `from` of `weight` to `to` in `out`.
void copy(const Weight& weight, std::int64_t from, void* out, std::int64_t to) {
    const std::size_t bytes = size_of(weight.scales.dtype);
    std::memcpy(static_cast<std::byte*>(out) + static_cast<std::size_t>(to) * bytes,
                static_cast<const std::byte*>(weight.scales.data) + static_cast<std::size_t>(from) * bytes, bytes);
}

}  // namespace

std::uint8_t arrange_scales(util::ThreadPool& threads, const ArrangeScalesArgs& args) {
    const Weight& weight = args.W;
    const weight::ScaleOrder order = scale_order(format_of(weight));
    const std::int64_t columns = order.columns_of_scale();
    const std::int64_t bytes = args.out.numel() / weight.E * order.bytes;
    std::atomic<std::uint8_t> largest = 0;
    threads.parallel_for(weight.E, [&](std::int64_t expert) {
        std::memset(static_cast<std::byte*>(args.out.data) + expert * bytes, 0, static_cast<std::size_t>(bytes));
        std::uint8_t most = 0;
        for (std::int64_t row = 0; row < weight.rows; ++row) {
            for (std::int64_t column = 0; column < weight.columns; column += columns) {
                const std::int64_t from =
                    (expert * weight.rows + row) * (weight.columns / weight.block) + column / weight.block;
                const std::int64_t to = weight::arranged_index(order, static_cast<int>(expert), static_cast<int>(row),
                                                               static_cast<int>(column), static_cast<int>(weight.rows),
                                                               static_cast<int>(weight.columns));
                copy(weight, from, args.out.data, to);
                if (weight.encoding == Encoding::mxfp4) {
                    most = std::max(most, static_cast<const std::uint8_t*>(weight.scales.data)[from]);
                }
            }
        }
        std::uint8_t known = largest;
        while (known < most && !largest.compare_exchange_weak(known, most)) {
        }
    });
    return largest;
}

}  // namespace smlora::cpu
