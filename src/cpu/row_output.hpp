// Writing the rows of a product in the order that the problem asks for.
#pragma once

#include "cpu/product.hpp"
#include "util/thread_pool.hpp"

#include <smlora/problem.hpp>

#include <span>
#include <vector>

namespace smlora::cpu {

template <class Acc>
struct RowOutput {
    Tensor tensor;
    RowOrder order = RowOrder::scattered;
    /// In token order: what each row is multiplied with before a token's rows are added up, by flat entry; empty: 1.
    std::vector<Acc> gates;
    /// Makes the `columns` values that are stored (or added up) of those of the product.
    std::function<void(const Segment<Acc>&, Acc* line)> finish;
};

/// Computes the sum of the products and writes it: rows of entries left out are zero; in token order the rows of a
/// token are added up in Acc in the order of j and rounded once.
template <class Acc>
void multiply_into(util::ThreadPool& threads, const RoutedRows& rows, std::span<const RowProduct<Acc>> products,
                   const RowOutput<Acc>& output);

}  // namespace smlora::cpu
