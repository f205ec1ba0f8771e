#include "cpu/decode.hpp"
#include "cpu/elements.hpp"
#include "cpu/operations.hpp"

#include <vector>

namespace smlora::cpu {

void dequantize(util::ThreadPool& threads, const DequantizeArgs& args) {
    const Weight& weight = args.W;
    const RowDecoder decoder(weight);
    threads.parallel_for(weight.E * weight.rows, [&](std::int64_t line) {
        std::vector<float> values(static_cast<std::size_t>(weight.columns));
        decoder.decode(line / weight.rows, line % weight.rows, 0, weight.columns, values.data());
        store_row(values.data(), weight.columns, element_at(args.out.data, args.out.dtype, line * weight.columns),
                  args.out.dtype);
    });
}

}  // namespace smlora::cpu
