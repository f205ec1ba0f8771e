#include "args/arrange_scales.h"
#include "args/split_factor.h"
#include "cpu/convert.hpp"
#include "cpu/decode.hpp"
#include "cpu/operations.hpp"
#include "scale_order.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>

namespace smlora::cpu {
namespace {

/// The scales of one expert, and what they are found to be.
class Arranger {
 public:
    Arranger(const ArrangeScalesArgs& args, std::int64_t expert)
        : weight_(args.W),
          order_(scale_order(format_of(args.W))),
          decoder_(args.W),
          out_(static_cast<std::byte*>(args.out.data)),
          expert_(expert) {}

    ArrangeFindings run(std::int64_t bytes) {
        std::memset(out_ + expert_ * bytes, 0, static_cast<std::size_t>(bytes));
        for (std::int64_t row = 0; row < weight_.rows; row += order_.rows_of_scale) {
            for (std::int64_t column = 0; column < weight_.columns; column += order_.columns_of_scale()) {
                put_scale(row, column);
            }
        }
        if (order_.has_split) {
            for (std::int64_t row = 0; row < weight_.rows; row += weight::scale_block) {
                for (std::int64_t column = 0; column < weight_.columns; column += weight::scale_block) {
                    put_split(row, column);
                }
            }
        }
        if (weight_.encoding == Encoding::fp8 || weight_.encoding == Encoding::mxfp8) look_at_codes();
        return found_;
    }

 private:
    [[nodiscard]] std::byte* place(std::int64_t row, std::int64_t column) const {
        const auto number = [](std::int64_t value) { return static_cast<int>(value); };
        return out_ + weight::arranged_index(order_, number(expert_), number(row), number(column), number(weight_.rows),
                                             number(weight_.columns)) *
                          order_.bytes;
    }

    void put_scale(std::int64_t row, std::int64_t column) {
        std::byte* const to = place(row, column);
        const auto bytes = static_cast<std::size_t>(order_.bytes);
        const auto* const given = static_cast<const std::uint8_t*>(weight_.scales.data);
        const auto index = static_cast<std::size_t>((expert_ * weight_.rows + row) * (weight_.columns / weight_.block) +
                                                    column / weight_.block);
        switch (weight_.encoding) {
            case Encoding::mxfp4:
            case Encoding::mxfp8:
                found_.largest = std::max(found_.largest, unsigned{given[index]});
                [[fallthrough]];
            case Encoding::int4:
                std::memcpy(to, given + index * bytes, bytes);
                return;
            case Encoding::nvfp4: {
                found_.nan_scales += (given[index] & 0x7fU) == 0x7f ? 1 : 0;
                const Bf16 scale = to_bf16(from_e4m3(given[index]));
                std::memcpy(to, &scale, bytes);
                return;
            }
            default: {
                const float scale = decoder_.scale(expert_, row, column);
                std::memcpy(to, &scale, bytes);
            }
        }
    }

    void put_split(std::int64_t row, std::int64_t column) {
        const bool fp8 = weight_.encoding == Encoding::fp8;
        const weight::Split split =
            fp8 ? weight::split_of_e4m3_scale(decoder_.scale(expert_, row, column))
                : weight::split_of_outer_scale(outer(row), weight_.global_scale == GlobalScale::divisor);
        if (!split.found) {
            ++found_.without_split;
            return;
        }
        const unsigned word = split.word(fp8 ? weight::e4m3_power : weight::nvfp4_power);
        std::memcpy(place(row, column) + order_.split_at(), &word, sizeof word);
    }

    [[nodiscard]] float outer(std::int64_t row) const {
        const Tensor& global = weight_.global_scales;
        return static_cast<const float*>(
            global.data)[expert_ * global.strides[0] + row / (weight_.rows / weight_.parts) * global.strides[1]];
    }

    void look_at_codes() {
        const std::int64_t count = weight_.rows * weight_.columns;
        const auto* const codes = static_cast<const std::uint8_t*>(weight_.codes.data) + expert_ * count;
        for (std::int64_t i = 0; i < count; ++i) found_.nan_codes += (codes[i] & 0x7fU) == 0x7f ? 1 : 0;
    }

    const Weight& weight_;
    weight::ScaleOrder order_;
    RowDecoder decoder_;
    std::byte* out_;
    std::int64_t expert_;
    ArrangeFindings found_{};
};

}  // namespace

ArrangeFindings arrange_scales(util::ThreadPool& threads, const ArrangeScalesArgs& args) {
    const std::int64_t bytes = args.out.numel() / args.W.E * static_cast<std::int64_t>(size_of(args.out.dtype));
    ArrangeFindings all{};
    std::mutex mutex;
    threads.parallel_for(args.W.E, [&](std::int64_t expert) {
        const ArrangeFindings found = Arranger(args, expert).run(bytes);
        const std::lock_guard lock(mutex);
        all.largest = std::max(all.largest, found.largest);
        all.without_split += found.without_split;
        all.nan_scales += found.nan_scales;
        all.nan_codes += found.nan_codes;
    });
    return all;
}

}  // namespace smlora::cpu
