// The warpgroup that fills the stages: rows gathered with cp.async.
#pragma once

#include "lora_gradient_wgmma/layout.cuh"
#include "lora_gradient_wgmma/own_items.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/shared.cuh"
#include "ptx/synchronise.cuh"
#include "ring.cuh"
#include "swizzle.cuh"

namespace smlora::lora_gradient_wgmma {

/// A producer is bound by its instructions: 128 threads copy all that 256 multiply. So places in a stage are constants
/// beside one address, and what a step needs is looked up while the step before is copied, across items.
template <class C>
struct Producer {
    using L = Layout<C>;
    using Element = typename C::Element;

    /// Eight threads copy 128 bytes of a row, 16 rows a pass.
    static constexpr int pass_rows = 16;
    static constexpr int passes = C::STEP_ROWS / pass_rows;
    static constexpr int wide_blocks = warpgroups * C::BLOCKS;
    static constexpr int rank_blocks = ceil_div(L::ranks, block_columns);

    /// What a thread copies of a step's rows, one of each pass.
    struct Sources {
        const Element* wide[passes];
    };

    /// Its part of the rank rows and their gates, where those are multiplied.
    struct Gated {
        float gates[passes];
        Vec16 ranks[passes][rank_blocks];
    };

    OwnItems<C> items;
    const LoraGradientPair& args;
    unsigned base;
    Item* announced;  ///< in shared memory, for those that multiply: a ring
    int chunk;        ///< of a row's 128 bytes
    int own_row;      ///< of a pass

    Item item{};
    int first = 0;  ///< sorted position of the step
    int place_announced = 0;
    Ring<C::STAGES> ring;

    __device__ __forceinline__ Producer(const Items<C>& all, const LoraGradientPair& gradients, unsigned char* shared)
        : items(all, gradients.taken, reinterpret_cast<int*>(shared + L::memory.turns)),
          args(gradients),
          base(ptx::shared_address(shared)),
          announced(reinterpret_cast<Item*>(shared + L::memory.items)),
          chunk(static_cast<int>(threadIdx.x) & 7),
          own_row((static_cast<int>(threadIdx.x) & 127) >> 3) {}

    [[nodiscard]] __device__ __forceinline__ const LoraGradientArgs& side() const {
        return item.side == side_a ? args.a : args.b;
    }

    /// Those that multiply see it with the item's first step.
    __device__ __forceinline__ void next_item() {
        item = items.next();
        first = item.begin;
        if (threadIdx.x == 0) announced[place_announced] = item;
        if (++place_announced == taken_items(C::STAGES)) place_announced = 0;
        if (is_last_step()) items.ask();
    }

    [[nodiscard]] __device__ __forceinline__ bool is_last_step() const { return first + C::STEP_ROWS >= item.end; }

    /// An item without rows, and the one that says that there is no other, has one step, too.
    __device__ __forceinline__ void next_step() {
        if (is_last_step()) {
            next_item();
        } else {
            first += C::STEP_ROWS;
            if (is_last_step()) items.ask();
        }
    }

    /// The flat entries of this thread's rows of the step, 0 beyond the end.
    __device__ __forceinline__ void look_up(int (&flat)[passes]) const {
        const auto* const scattered = static_cast<const typename C::Index*>(args.a.scattered_idxs);
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const int position = first + own_row + pass * pass_rows;
            flat[pass] = position < item.end ? static_cast<int>(scattered[position]) : 0;
        }
    }

    [[nodiscard]] __device__ __forceinline__ Sources sources(const int (&flat)[passes]) const {
        const bool a = item.side == side_a;
        const auto* const wide = static_cast<const Element*>(side().wide) + item.column + chunk * 8;
        const int64 pitch = side().wide_stride;
        Sources sources;
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const int position = first + own_row + pass * pass_rows;
            const int row = a ? RowsA<C>::index(position, flat[pass]) : RowsB<C>::index(position, flat[pass]);
            sources.wide[pass] = position < item.end ? wide + row * pitch : wide;
        }
        return sources;
    }

    /// Where this thread's chunk of the rows of a stage lies in the first block.
    [[nodiscard]] __device__ __forceinline__ unsigned own_place() const {
        return base + static_cast<unsigned>(ring.stage * L::memory.stage_bytes) + swizzled<8>(own_row, chunk);
    }

    /// From there, in bytes.
    static constexpr unsigned place(int block, int pass) {
        return static_cast<unsigned>(block * L::memory.block_bytes + pass * pass_rows * 128);
    }

    /// The rank rows of a step, those beyond the end as zeros: what lies there is multiplied, too.
    __device__ __forceinline__ void copy_ranks(unsigned to, const Element* rank_rows, int position, int end) const {
#pragma unroll
        for (int pass = 0; pass < passes; ++pass, position += pass_rows) {
            const bool inside = position < end;
            const Element* const from =
                rank_rows + (inside ? static_cast<int64>(position) * C::RANK_STRIDE + chunk * 8 : 0);
#pragma unroll
            for (int block = 0; block < rank_blocks; ++block) {
                // Ranks past the last are never read.
                if (block * block_columns + chunk * 8 < L::ranks) {
                    ptx::cp_async_16(to + place(block, pass), from + block * block_columns, inside ? 16U : 0U);
                }
            }
        }
    }

    /// Loaded before the stage is waited for: nothing else hides what it takes.
    __device__ __forceinline__ void load_gated(Gated& gated, const int (&flat)[passes]) const {
        const auto* const gates = static_cast<const typename C::Gate*>(args.a.gates);
        const auto* const rank_rows = static_cast<const Element*>(side().rank_rows) + chunk * 8;
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const int position = first + own_row + pass * pass_rows;
            const bool inside = position < item.end;
            gated.gates[pass] = inside ? to_float(gates[flat[pass]]) : 0.0F;
#pragma unroll
            for (int block = 0; block < rank_blocks; ++block) {
                gated.ranks[pass][block] = {};
                if (inside && block * block_columns + chunk * 8 < L::ranks) {
                    gated.ranks[pass][block] = *reinterpret_cast<const Vec16*>(
                        rank_rows + static_cast<int64>(position) * C::RANK_STRIDE + block * block_columns);
                }
            }
        }
    }

    __device__ __forceinline__ void store_gated(unsigned to, Gated& gated) const {
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
#pragma unroll
            for (int block = 0; block < rank_blocks; ++block) {
                if (block * block_columns + chunk * 8 >= L::ranks) continue;
                Vec16& values = gated.ranks[pass][block];
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    const float low = to_float(Element{static_cast<uint16>(values.word[w] & 0xffffU)});
                    const float high = to_float(Element{static_cast<uint16>(values.word[w] >> 16)});
                    values.word[w] = pack2<Element>(low * gated.gates[pass], high * gated.gates[pass]);
                }
                ptx::store_shared(to + place(block, pass), values.word);
            }
        }
    }

    __device__ __forceinline__ void arrive(unsigned barrier) const {
        if (C::HAS_GATES != 0 || threadIdx.x == 0) ptx::mbarrier_arrive(barrier);
        ptx::cp_async_arrive(barrier);
    }

    __device__ __forceinline__ void run() {
        int flat[passes];
        next_item();
        look_up(flat);
        for (bool more = true; more;) {
            const Sources from = sources(flat);
            [[maybe_unused]] Gated gated;
            if constexpr (C::HAS_GATES != 0) load_gated(gated, flat);
            const auto* const rank_rows = static_cast<const Element*>(side().rank_rows);
            const int position = first + own_row;
            const int end = item.end;
            const int columns = item.width - chunk * 8;  // of the span, from this thread's on
            more = item.group >= 0;
            if (more) {
                next_step();
                look_up(flat);
            }

            ptx::mbarrier_wait(L::emptied(base, ring.stage), ring.parity ^ 1U);
            const unsigned to = own_place();
#pragma unroll
            for (int block = 0; block < wide_blocks; ++block) {
                // Columns past the last make sums that are not written.
                if (block * block_columns >= columns) continue;
#pragma unroll
                for (int pass = 0; pass < passes; ++pass) {
                    ptx::cp_async_16(to + place(block, pass), from.wide[pass] + block * block_columns,
                                     position + pass * pass_rows < end ? 16U : 0U);
                }
            }
            const unsigned ranks_to = to + static_cast<unsigned>(L::memory.stage_ranks);
            if constexpr (C::HAS_GATES != 0) {
                store_gated(ranks_to, gated);
            } else {
                copy_ranks(ranks_to, rank_rows, position, end);
            }
            arrive(L::filled(base, ring.stage));
            ring.next();
        }
    }
};

}  // namespace smlora::lora_gradient_wgmma
