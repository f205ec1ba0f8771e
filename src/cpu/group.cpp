#include "cpu/elements.hpp"
#include "cpu/operations.hpp"
#include "cpu/routed_rows.hpp"

#include <cstring>

namespace smlora::cpu {
namespace {

template <class Acc>
void group_in(util::ThreadPool& threads, const Problem& problem, const GroupArgs& args) {
    const RoutedRows rows(problem, args.routing);
    const std::vector<std::int64_t> x_row = rows.rows_in(problem.x_rows);
    const std::vector<Acc> gates = rows.sorted(load_all<Acc>(args.gates));
    const std::int64_t width = args.x.shape[1];
    const std::size_t row_bytes = static_cast<std::size_t>(width) * size_of(problem.dtype);
    if (row_bytes == 0) return;
    threads.parallel_for(rows.size(), [&](std::int64_t i) {
        void* out = row_at(args.out, i);
        if (i >= rows.routed()) {
            std::memset(out, 0, row_bytes);
            return;
        }
        const void* x = row_at(args.x, x_row[static_cast<std::size_t>(i)]);
        if (gates.empty()) {
            std::memcpy(out, x, row_bytes);
            return;
        }
        std::vector<Acc> line(static_cast<std::size_t>(width));
        load_row(x, problem.dtype, width, line.data());
        for (Acc& value : line) value *= gates[static_cast<std::size_t>(i)];
        store_row(line.data(), width, out, problem.dtype);
    });
}

}  // namespace

void group(util::ThreadPool& threads, const Problem& problem, const GroupArgs& args) {
    if (problem.dtype == DType::fp64) {
        group_in<double>(threads, problem, args);
    } else {
        group_in<float>(threads, problem, args);
    }
}

}  // namespace smlora::cpu
