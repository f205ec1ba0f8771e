// Gradients of the adapter on wgmma, sm_90a: dA_e = yb_e^T x_e and dB_e = dy_e^T xa_e in one launch, products whose
// reduction runs over the rows of an expert. x and dy are read once, whatever the rank.
//
// wgmma's m side are 64 columns of the wide operand and its n side all ranks. Both operands lie in shared memory with
// the reduction strided, a row of the operand after the other, as they are in global memory.
//
// Blocks of a persistent grid take the items (expert, chunk of its rows, span of columns), the last fastest, or the
// span slowest where the arguments ask for it: in turn or, from a counter, as they get done. An expert with many rows
// is cut into chunks, whose sums go to `partials` in fp32; lora_gradient_reduce adds them in order. So results are
// bitwise repeatable, whichever block makes which.
//
// Roles: a warpgroup takes items, copies STEP_ROWS rows a stage and runs ahead across items, which it announces; two
// others multiply and write, BLOCKS x 64 columns each. Shared memory: args/lora_gradient_wgmma.h.
//
// Compile-time (struct C): E, WIDE_A and WIDE_B (columns; 0: that gradient is not wanted), ROWS_A, ROWS_B, RANK,
// RANK_STRIDE (at most 256), TOP_K, HAS_GATES, BLOCKS, STEP_ROWS, STAGES; types Element, Output, Gate, Index. The
// widths and RANK_STRIDE are multiples of 8, every row 16-byte aligned.
#pragma once

#include "args/lora_gradient.h"
#include "args/lora_gradient_wgmma.h"
#include "lora_gradient_pieces.cuh"
#include "lora_gradient_wgmma/consumer.cuh"
#include "lora_gradient_wgmma/producer.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/synchronise.cuh"
#include "tile_list.cuh"

namespace smlora::lora_gradient_wgmma {

using Args = LoraGradientPair;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using L = Layout<C>;
    extern __shared__ __align__(1024) unsigned char shared[];
    int* const prefix = reinterpret_cast<int*>(shared + L::memory.prefix);
    int* const slots = reinterpret_cast<int*>(shared + L::memory.slots);
    int* const warp_totals = reinterpret_cast<int*>(shared + L::memory.warp_totals);
    const unsigned base = ptx::shared_address(shared);
    const GradientGroups<C> groups{static_cast<const typename C::Index*>(args.a.expert_offsets), args.a.M};
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < C::STAGES; ++stage) {
            ptx::mbarrier_init(L::filled(base, stage), L::filling_arrivals);
            ptx::mbarrier_init(L::emptied(base, stage), warpgroups * 4);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::let_next_kernel_begin();
    const int uncut_rows = args.a.uncut_rows;
    prefix_counts<C::E, threads>(prefix, warp_totals,
                                 [&](int group) { return gradient_chunks<C>(groups, group, uncut_rows); });
    gradient_slots<threads, C>(slots, warp_totals, groups, uncut_rows);
    const Items<C> items{prefix, slots, args};
    const int warpgroup = static_cast<int>(threadIdx.x) / 128;
    if (warpgroup == 0) {
        ptx::give_registers_up<L::copying_registers>();
        Producer<C>(items, args, shared).run();
    } else {
        ptx::take_registers<L::multiplying_registers>();
        const auto* const announced = reinterpret_cast<const Item*>(shared + L::memory.items);
        Consumer<C>{args, base, announced, (warpgroup - 1) * C::BLOCKS}.run();
    }
}

}  // namespace smlora::lora_gradient_wgmma
