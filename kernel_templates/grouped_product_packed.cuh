// Grouped product on Hopper's tensor cores (sm_90a) with packed weights, decoded where they are multiplied.
//
// All but the multiplying warps as in grouped_product_wgmma.cuh: tiles, copies, the output's way. A stage has codes and
// scales in place of weights. The warps that multiply decode them into fragments, the first operand of wgmma, two
// instructions ahead of it.
//
// ptxas serialises wgmma with operands in registers where it finds too few registers, and it counts the accumulators of
// all heights of tiles together: there are few heights, from LEAST_HEIGHT on, and one array of accumulators for all.
//
// Roles, shared memory: grouped_product_wgmma.cuh, whose Layout and Consumer have specialisations here.
//
// Compile-time (struct C): as grouped_product_wgmma.cuh, and LEAST_HEIGHT. Weight is a packed format
// (weight/wgmma_packed.cuh); WEIGHT_MAJOR 0: rows come in the order that it asks for; RANK up to 64; CLUSTER 1,
// MAKES_RANK_ROWS 0, WEIGHTS_ONCE 0, SLICE 0; Element bf16.
#pragma once

#include "args/packed_weight.h"
#include "grouped_product_packed/consumer.cuh"
#include "grouped_product_packed/layout.cuh"
#include "grouped_product_wgmma.cuh"
#include "weight/fp8.cuh"
#include "weight/int4.cuh"
#include "weight/mxfp4.cuh"
#include "weight/mxfp8.cuh"
#include "weight/nvfp4.cuh"
#include "weight/table4.cuh"

namespace smlora::grouped_product_packed {

using Args = GroupedProductPackedArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    grouped_product_wgmma::run<C>(args.wgmma);
}

}  // namespace smlora::grouped_product_packed
