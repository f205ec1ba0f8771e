#include "workload/encoded.hpp"

#include "args/split_factor.h"
#include "workload/array.hpp"
#include "workload/number.hpp"

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <utility>

namespace smlora::workload {
namespace {

using Bytes = std::vector<std::byte>;

std::int64_t quotient_up(std::int64_t value, std::int64_t divisor) { return (value + divisor - 1) / divisor; }

const Engine& cpu_engine() {
    static const Engine engine = [] {
        EngineOptions options;
        options.backend = Backend::cpu;
        return Engine(options);
    }();
    return engine;
}

/// The tensors of a weight, in one order.
std::array<Tensor*, 7> tensors_of(Weight& weight) {
    DoubleQuantization& outer = weight.double_quantization;
    return {&weight.codes, &weight.scales, &weight.table,        &outer.scales,
            &outer.table,  &outer.offset,  &weight.global_scales};
}

class Maker {
 public:
    Maker(const EncodedShape& shape, const Random& random, std::list<Bytes>& memory)
        : shape_(shape), random_(random), memory_(memory) {}

    Weight make() {
        weight_.encoding = shape_.encoding;
        weight_.E = shape_.E;
        weight_.rows = shape_.rows;
        weight_.columns = shape_.columns;
        weight_.parts = shape_.parts;
        weight_.global_scale = shape_.global_scale;
        weight_.block = shape_.block;
        const std::int64_t E = shape_.E, rows = shape_.rows, columns = shape_.columns;
        switch (shape_.encoding) {
            case Encoding::nf4:
            case Encoding::fp4:
                bitsandbytes();
                break;
            case Encoding::int8:
                weight_.codes = any(DType::int8, {E, rows, columns});
                weight_.scales = numbers({E, rows}, 4, 0.58);
                break;
            case Encoding::mxfp4:
                usual_block(32);
                weight_.codes = any(DType::uint8, {E, rows, columns / 2});
                weight_.scales = powers({E, rows, columns / weight_.block}, e2m1_rms);
                break;
            case Encoding::mxfp8:
                usual_block(32);
                weight_.codes = eights({E, rows, columns});
                weight_.scales = powers({E, rows, columns / weight_.block}, e4m3_rms);
                break;
            case Encoding::fp8: {
                usual_block(128);
                weight_.codes = eights({E, rows, columns});
                const std::int64_t blocks = shape_.parts * quotient_up(rows / shape_.parts, weight_.block);
                const std::int64_t across = quotient_up(columns, weight_.block);
                weight_.scales = shape_.scales == DType::e8m0   ? powers({E, blocks, across}, e4m3_rms)
                                 : shape_.scales == DType::bf16 ? halves({E, blocks, across}, e4m3_rms)
                                                                : numbers({E, blocks, across}, 0.01, e4m3_rms);
                break;
            }
            case Encoding::nvfp4:
                usual_block(16);
                weight_.codes = any(DType::uint8, {E, rows, columns / 2});
                weight_.scales = eights({E, rows, columns / weight_.block});
                weight_.global_scales = numbers({E, shape_.parts}, 0.01, e2m1_rms * e4m3_rms);
                if (shape_.arranged) move_to_splits(weight_.global_scales);
                break;
            case Encoding::int4:
                usual_block(32);
                weight_.codes = any(DType::uint8, {E, rows, columns / 2});
                weight_.scales = shape_.scales == DType::fp32 ? numbers({E, rows, columns / weight_.block}, 0.1, 4.6)
                                                              : halves({E, rows, columns / weight_.block}, 4.6);
                break;
            case Encoding::plain:
                break;
        }
        if (shape_.arranged) weight_.scales = arranged();
        return weight_;
    }

 private:
    void usual_block(std::int64_t block) {
        if (weight_.block == 0) weight_.block = block;
    }

    void bitsandbytes() {
        usual_block(64);
        const std::int64_t values = shape_.E * shape_.rows * shape_.columns;
        const std::int64_t count = quotient_up(values, weight_.block);
        weight_.codes = any(DType::uint8, {quotient_up(values, 2), 1});
        weight_.table = numbers({16}, 1, shape_.deviation);
        if (shape_.double_quantized == 0) {
            weight_.scales = numbers({count}, 0.1, 1);
            return;
        }
        weight_.scales = any(DType::uint8, {count});
        DoubleQuantization& outer = weight_.double_quantization;
        outer.block = shape_.double_quantized;
        outer.scales = numbers({quotient_up(count, outer.block)}, 0.1, 1);
        outer.table = numbers({256}, 1, shape_.deviation);
        outer.offset = numbers({1}, 0.1, 4);
    }

    /// The few numbers that have no split become the next one that has.
    void move_to_splits(const Tensor& outer) const {
        auto* const numbers = static_cast<float*>(outer.data);
        const bool divides = weight_.global_scale == GlobalScale::divisor;
        for (std::int64_t i = 0; i < outer.numel(); ++i) {
            while (!weight::split_of_outer_scale(numbers[i], divides).found)
                numbers[i] = std::nextafter(numbers[i], 1.0F);
        }
    }

    Tensor arranged() {
        const auto [E, rows, columns, scales] =
            arranged_shape(format_of(weight_), shape_.E, shape_.rows, shape_.columns);
        const DType type = arranged_format(format_of(weight_)).scales;
        Bytes& memory = memory_.emplace_back(static_cast<std::size_t>(E * rows * columns * scales) * size_of(type));
        const Tensor out(memory.data(), type, {E, rows, columns, scales});
        arrange_scales(cpu_engine(), {}, {weight_, out});
        weight_.double_quantization = {};
        return out;
    }

    template <class Value>
    Tensor filled(DType dtype, std::initializer_list<std::int64_t> shape,
                  const std::function<Value(std::uint64_t)>& value) {
        const Tensor counted(nullptr, dtype, shape);
        Bytes& bytes = memory_.emplace_back(static_cast<std::size_t>(counted.numel()) * sizeof(Value));
        const Random random(random_.bits(memory_.size()));
        for (std::size_t i = 0; i < bytes.size() / sizeof(Value); ++i) {
            const Value one = value(random.bits(i));
            std::memcpy(bytes.data() + i * sizeof(Value), &one, sizeof one);
        }
        return {bytes.data(), dtype, shape};
    }

    Tensor any(DType dtype, std::initializer_list<std::int64_t> shape) {
        return filled<std::uint8_t>(dtype, shape, [](std::uint64_t bits) { return static_cast<std::uint8_t>(bits); });
    }

    // Root mean squares of codes that are as likely as each other; of e4m3 those below 1.
    static constexpr double e2m1_rms = 2.9;
    static constexpr double e4m3_rms = 0.2;

    /// Any code of e4m3; with a deviation below 1.
    Tensor eights(std::initializer_list<std::int64_t> shape) {
        const unsigned mask = shape_.deviation > 0 ? 0xBF : 0xFF;
        return filled<std::uint8_t>(DType::e4m3, shape,
                                    [mask](std::uint64_t bits) { return static_cast<std::uint8_t>(bits & mask); });
    }

    /// Near 1, and each 16th any byte. With a deviation, for codes of this root mean square.
    Tensor powers(std::initializer_list<std::int64_t> shape, double rms) {
        const DType dtype = shape_.scales == DType::e8m0 ? DType::e8m0 : DType::uint8;
        if (shape_.deviation > 0) {
            const auto middle = static_cast<int>(127 + std::lround(std::log2(shape_.deviation / rms)));
            return filled<std::uint8_t>(dtype, shape, [middle](std::uint64_t bits) {
                return static_cast<std::uint8_t>(middle - 1 + static_cast<int>(bits % 3));
            });
        }
        return filled<std::uint8_t>(dtype, shape, [](std::uint64_t bits) {
            return static_cast<std::uint8_t>(bits % 16 == 0 ? bits >> 8 : 117 + (bits >> 8) % 16);
        });
    }

    /// A scale for codes of this root mean square.
    [[nodiscard]] double usual(std::uint64_t bits, double rms) const {
        return shape_.deviation / rms * Random(bits).normal(0);
    }

    /// Of either sign, and now and then a special one; with a deviation none.
    Tensor numbers(std::initializer_list<std::int64_t> shape, double size, double rms) {
        if (shape_.deviation > 0) {
            return filled<float>(DType::fp32, shape,
                                 [&](std::uint64_t bits) { return static_cast<float>(usual(bits, rms)); });
        }
        return filled<float>(DType::fp32, shape, [size](std::uint64_t bits) {
            constexpr std::array special{0.0F,
                                         -0.0F,
                                         0x1p-149F,
                                         0x1.8p-130F,
                                         std::numeric_limits<float>::infinity(),
                                         std::numeric_limits<float>::quiet_NaN(),
                                         0x1.fffffep127F};
            if (bits % 64 == 0) return special[(bits >> 8) % special.size()];
            return static_cast<float>(size * Random(bits).normal(0));
        });
    }

    /// Of 16 bits: bits of the right type by themselves.
    Tensor halves(std::initializer_list<std::int64_t> shape, double rms) {
        if (shape_.deviation > 0) {
            return filled<std::uint16_t>(shape_.scales, shape, [&](std::uint64_t bits) {
                std::uint16_t half = 0;
                with_codec(shape_.scales, [&](auto codec) {
                    if constexpr (sizeof(typename decltype(codec)::Bits) == sizeof half) {
                        half = codec.encode(usual(bits, rms));
                    }
                });
                return half;
            });
        }
        return filled<std::uint16_t>(shape_.scales, shape, [](std::uint64_t bits) {
            if (bits % 16 == 0) return static_cast<std::uint16_t>(bits >> 8);
            // An exponent near that of 1 in either type.
            return static_cast<std::uint16_t>((bits >> 8 & 0x83ff) | 0x3800);
        });
    }

    const EncodedShape& shape_;
    const Random& random_;
    std::list<Bytes>& memory_;
    Weight weight_;
};

}  // namespace

EncodedWeight::EncodedWeight(const Engine& engine, const EncodedShape& shape, const Random& random) {
    on_host_ = weight_ = Maker(shape, random, host_).make();
    for (Tensor* tensor : tensors_of(weight_)) {
        if (!tensor->given()) continue;
        const std::size_t bytes = static_cast<std::size_t>(tensor->numel()) * size_of(tensor->dtype);
        Buffer& buffer = buffers_.emplace_back(engine, bytes);
        buffer.copy_from_host(tensor->data, bytes);
        tensor->data = buffer.data();
    }
}

EncodedShape encoded_shape(const Problem& problem) {
    const bool enk = problem.weight_layout == WeightLayout::enk;
    const WeightFormat& format = problem.weights;
    return {.encoding = format.encoding,
            .E = problem.E,
            .rows = enk ? problem.N : problem.K,
            .columns = enk ? problem.K : problem.N,
            .block = format.block,
            .parts = format.parts,
            .scales = format.scales,
            .double_quantized = format.outer_block,
            .global_scale = format.global_scale,
            .arranged = format.arranged,
            .deviation = 1 / std::sqrt(static_cast<double>(problem.K))};
}

std::vector<double> decoded(const Weight& on_host, DType dtype) {
    Array out(cpu_engine(), dtype, {{on_host.E, on_host.rows, on_host.columns}});
    dequantize(cpu_engine(), {}, {on_host, out.view()});
    return out.values();
}

std::size_t EncodedWeight::bytes() const {
    std::size_t sum = 0;
    for (const Buffer& buffer : buffers_) sum += buffer.bytes();
    return sum;
}

bool EncodedWeight::is_unchanged() const {
    Weight given = on_host_;
    auto buffer = buffers_.begin();
    for (const Tensor* tensor : tensors_of(given)) {
        if (!tensor->given()) continue;
        Bytes now(buffer->bytes());
        buffer->copy_to_host(now.data(), now.size());
        if (std::memcmp(now.data(), tensor->data, now.size()) != 0) return false;
        ++buffer;
    }
    return true;
}

}  // namespace smlora::workload
