// Grouped product on tensor cores with packed weights, sm_80 and up: grouped_product_mma.cuh, whose stages hold codes and
// scales.
//
// Roles, shared memory, compile-time: as grouped_product_mma.cuh. Weight is weight::Packed of a format
// (weight/mma_packed.cuh); TILE_K is 64 and TILE_N a multiple of 64; SLICE 0; Element bf16.
#pragma once

#include "args/packed_weight.h"
#include "grouped_product_mma.cuh"
#include "weight/fp8.cuh"
#include "weight/int4.cuh"
#include "weight/mma_packed.cuh"
#include "weight/mxfp4.cuh"
#include "weight/mxfp8.cuh"
#include "weight/nvfp4.cuh"
#include "weight/table4.cuh"

namespace smlora::grouped_product_mma_packed {

using Args = GroupedProductMmaPackedArgs;

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    grouped_product_mma::run<C>(args.product,
                                {static_cast<const unsigned char*>(args.product.weight), args.scales, args.table});
}

}  // namespace smlora::grouped_product_mma_packed
