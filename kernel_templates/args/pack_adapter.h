// Arguments of pack_adapter and pack_adapter_reference, shared by the host and the kernels.
#pragma once

namespace smlora {

/// packed [E, OUTER_PAD, INNER_PAD], contiguous: packed[e, o, i] = source(e, o, i), converted, and zero where o >=
/// OUTER or i >= INNER. A: outer the rank, inner K. B: outer N, inner the rank. Strides count elements.
///
/// Launch: THREADS threads (256), no dynamic shared memory; any grid is right, a block takes one tile at a time, of
/// pack_adapter::tile_elements at most:
///     grid = min(ceil(E * OUTER_PAD * INNER_PAD / tile_elements), 32 multiprocessors)
/// The reference: 256 threads, any grid, a thread at a time takes one element.
struct PackAdapterArgs {
    const void* source;
    long long expert_stride;
    long long outer_stride;
    long long inner_stride;
    void* packed;
};

namespace pack_adapter {

/// Elements that a block moves at once.
constexpr int tile_elements = 1024;

}  // namespace pack_adapter
}  // namespace smlora
