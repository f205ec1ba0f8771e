// Which items a block takes.
#pragma once

#include "lora_gradient_wgmma/layout.cuh"
#include "ptx/synchronise.cuh"

namespace smlora::lora_gradient_wgmma {

/// The barrier of the warpgroup that copies; 0 is the whole block's.
constexpr int copying_barrier = 1;

/// A block's items, one after the other, for the warpgroup that copies: of many small ones every gridDim.x-th, without
/// a counter to be zeroed; of large ones, which an uneven routing makes uneven, the next that no block has taken.
template <class C>
struct OwnItems {
    const Items<C>& items;
    int* counter;  ///< null: dealt in turn
    int* turns;    ///< in shared memory: the number of the next item, in two places in turn
    int count;
    int number;    ///< of the next item
    int turn = 0;  ///< how many were taken
    int fetched = 0;
    Item of_lane{};

    __device__ __forceinline__ OwnItems(const Items<C>& all, int* taken, int* shared)
        : items(all), counter(taken), turns(shared), count(all.count()), number(static_cast<int>(blockIdx.x)) {}

    /// Called by whole warps. `group` is -1 if there is no other.
    [[nodiscard]] __device__ __forceinline__ Item next() { return counter == nullptr ? deal() : take(); }

    /// Once before every next() but the first, as much before as the counter needs to answer: an item that is asked for
    /// earlier may have to wait for this block while others are done.
    __device__ __forceinline__ void ask() {
        if (counter != nullptr && threadIdx.x == 0) fetched = atomicAdd(counter, 1);
    }

 private:
    /// Each lane finds one of the next 32, as finding one takes a chain of loads.
    [[nodiscard]] __device__ __forceinline__ Item deal() {
        if (number >= count) return none();
        if (turn % 32 == 0) {
            const int own = number + static_cast<int>(threadIdx.x % 32 * gridDim.x);
            if (own < count) of_lane = items.at(own);
        }
        const auto of_turn = [&](int value) { return __shfl_sync(0xffffffffU, value, turn % 32); };
        Item item;
        item.side = of_turn(of_lane.side);
        item.group = of_turn(of_lane.group);
        item.slot = of_turn(of_lane.slot);
        item.column = of_turn(of_lane.column);
        item.width = of_turn(of_lane.width);
        item.rank_tile = 0;
        item.begin = of_turn(of_lane.begin);
        item.end = of_turn(of_lane.end);
        number += static_cast<int>(gridDim.x);
        ++turn;
        return item;
    }

    [[nodiscard]] __device__ __forceinline__ Item take() {
        if (turn > 0) {
            if (threadIdx.x == 0) turns[turn % 2] = fetched + static_cast<int>(gridDim.x);
            ptx::named_barrier_sync(copying_barrier, 128);
            number = turns[turn % 2];
        }
        ++turn;
        return number < count ? items.at(number) : none();
    }

    [[nodiscard]] static __device__ __forceinline__ Item none() {
        Item item{};
        item.group = -1;
        return item;
    }
};

}  // namespace smlora::lora_gradient_wgmma
