#include "cpu/operations.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace smlora::cpu {
namespace {

/// A counting sort in three passes: counts of each chunk, where each chunk begins in each expert, the entries. Chunks
/// and the entries in them stay in order, so it is stable on any number of threads.
template <class Input, class Index>
void sort_entries(util::ThreadPool& threads, std::int64_t E, const Input* top_idx, std::int64_t M, Index* experts,
                  Index* entries, Index* offsets) {
    constexpr std::int64_t chunk = 1 << 16;
    const std::int64_t chunks = (M + chunk - 1) / chunk;
    // Entries left out are those of expert E.
    auto expert_of = [&](std::int64_t f) {
        const auto expert = static_cast<std::int64_t>(top_idx[f]);
        return expert >= 0 && expert < E ? expert : E;
    };
    std::vector<std::int64_t> table(static_cast<std::size_t>(chunks * (E + 1)));
    threads.parallel_for(chunks, [&](std::int64_t c) {
        std::int64_t* counts = table.data() + c * (E + 1);
        for (std::int64_t f = c * chunk; f < std::min(M, (c + 1) * chunk); ++f) ++counts[expert_of(f)];
    });
    std::int64_t next = 0;
    for (std::int64_t e = 0; e <= E; ++e) {
        for (std::int64_t c = 0; c < chunks; ++c) {
            const std::int64_t count = table[static_cast<std::size_t>(c * (E + 1) + e)];
            table[static_cast<std::size_t>(c * (E + 1) + e)] = next;
            next += count;
        }
        if (e < E) offsets[e] = static_cast<Index>(next);
    }
    threads.parallel_for(chunks, [&](std::int64_t c) {
        std::int64_t* positions = table.data() + c * (E + 1);
        for (std::int64_t f = c * chunk; f < std::min(M, (c + 1) * chunk); ++f) {
            const std::int64_t expert = expert_of(f);
            const std::int64_t i = positions[expert]++;
            experts[i] = static_cast<Index>(expert);
            entries[i] = static_cast<Index>(f);
        }
    });
}

template <class Visitor>
void visit_index(DType dtype, const Visitor& visitor) {
    if (dtype == DType::int32) {
        visitor(std::int32_t{});
    } else {
        visitor(std::int64_t{});
    }
}

}  // namespace

void route(util::ThreadPool& threads, const Problem& problem, const RouteArgs& args) {
    visit_index(args.top_idx.dtype, [&]<class Input>(Input) {
        visit_index(problem.index_dtype, [&]<class Index>(Index) {
            sort_entries(threads, problem.E, static_cast<const Input*>(args.top_idx.data), args.top_idx.numel(),
                         static_cast<Index*>(args.routing.sorted_expert_idxs.data),
                         static_cast<Index*>(args.routing.sorted_scattered_idxs.data),
                         static_cast<Index*>(args.routing.expert_offsets.data));
        });
    });
}

}  // namespace smlora::cpu
