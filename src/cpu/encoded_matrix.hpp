// Quantised weights as a factor of a product.
#pragma once

#include "cpu/decode.hpp"
#include "cpu/isa/kernels.hpp"

#include <smlora/problem.hpp>
#include <smlora/weight.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace smlora::cpu {

/// A quantised weight of which a tile at a time is decoded, to the type that the products of plain weights read.
class EncodedMatrix {
 public:
    /// `outer_rows`: whether outer runs over the rows as they are stored, and k over their columns, or the other way
    /// round.
    EncodedMatrix(const Weight& weight, DType dtype, bool outer_rows)
        : decoder_(weight), dtype_(dtype), outer_rows_(outer_rows) {}

    /// Of an expert's matrix, outer and k from `outer` and `k` on, both counted from there. It lies in `memory`.
    template <class Acc>
    [[nodiscard]] Factor<Acc> decode(std::int64_t expert, std::int64_t outer, std::int64_t outer_count, std::int64_t k,
                                     std::int64_t depth, std::vector<std::byte>& memory) const;

 private:
    RowDecoder decoder_;
    DType dtype_;
    bool outer_rows_;
};

}  // namespace smlora::cpu
