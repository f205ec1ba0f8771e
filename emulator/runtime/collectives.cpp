// What a warp does together: barriers, shuffles, votes, reductions.
#include "runtime/machine.hpp"

#include <array>
#include <utility>
#include <vector>

namespace smlora::emulator {
namespace {

constexpr unsigned full_warp = 0xffffffffU;

struct BarrierOperand {
    unsigned barrier, count;
    bool waits;
    Where where;
};

GoOn meet_at_barrier(Warp& warp, const Operands& operands) {
    std::vector<GpuThread*> waiting;
    const BarrierOperand* any = nullptr;
    GpuThread* thread = nullptr;
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto* operand = static_cast<const BarrierOperand*>(operands[lane]);
        if (operand == nullptr) continue;
        any = operand;
        thread = &warp.thread(lane);
        if (operand->waits) waiting.push_back(thread);
    }
    const bool go_on = thread->block->barriers().arrive(any->barrier, any->count, waiting, any->where);
    if (!any->waits) return GoOn::all;
    return go_on ? GoOn::current : GoOn::none;
}

struct ShuffleOperand {
    Shuffle kind;
    unsigned long long bits;
    unsigned operand;
    int width;
};

/// The lane that `lane` reads, which may be outside of its segment and is then itself.
unsigned source_lane(const ShuffleOperand& shuffle, unsigned lane) {
    const auto width = static_cast<unsigned>(shuffle.width);
    const unsigned first = lane / width * width;
    const unsigned last = first + width - 1;
    switch (shuffle.kind) {
        case Shuffle::index:
            return first + shuffle.operand % width;
        case Shuffle::up:
            return lane - first >= shuffle.operand ? lane - shuffle.operand : lane;
        case Shuffle::down:
            return last - lane >= shuffle.operand ? lane + shuffle.operand : lane;
        case Shuffle::exclusive_or: {
            const unsigned source = lane ^ shuffle.operand;
            return source <= last ? source : lane;
        }
    }
    return lane;
}

GoOn exchange(Warp&, const Operands& operands) {
    std::array<unsigned long long, 32> result{};
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto* operand = static_cast<const ShuffleOperand*>(operands[lane]);
        if (operand == nullptr) continue;
        const auto* source = static_cast<const ShuffleOperand*>(operands[source_lane(*operand, lane)]);
        // What a lane that takes no part would give is undefined.
        result[lane] = source == nullptr ? ~0ULL : source->bits;
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (operands[lane] != nullptr) static_cast<ShuffleOperand*>(operands[lane])->bits = result[lane];
    }
    return GoOn::all;
}

struct MatchOperand {
    unsigned long long bits;
    unsigned lanes;
};

GoOn match(Warp&, const Operands& operands) {
    for (void* own : operands) {
        auto* const operand = static_cast<MatchOperand*>(own);
        if (operand == nullptr) continue;
        operand->lanes = 0;
        for (unsigned lane = 0; lane < 32; ++lane) {
            const auto* other = static_cast<const MatchOperand*>(operands[lane]);
            if (other != nullptr && other->bits == operand->bits) operand->lanes |= 1U << lane;
        }
    }
    return GoOn::all;
}

struct VoteOperand {
    Vote kind;
    bool predicate;
    unsigned result;
};

GoOn count_votes(Warp&, const Operands& operands) {
    unsigned present = 0;
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto* operand = static_cast<const VoteOperand*>(operands[lane]);
        if (operand == nullptr) continue;
        present |= 1U << lane;
        if (operand->predicate) votes |= 1U << lane;
    }
    for (void* own : operands) {
        auto* const operand = static_cast<VoteOperand*>(own);
        if (operand == nullptr) continue;
        operand->result = operand->kind == Vote::ballot ? votes
                          : operand->kind == Vote::any  ? static_cast<unsigned>(votes != 0)
                                                        : static_cast<unsigned>(votes == present);
    }
    return GoOn::all;
}

struct ReduceOperand {
    Reduce kind;
    bool is_signed;
    unsigned value;
};

unsigned combine(const ReduceOperand& a, unsigned b) {
    const bool less = a.is_signed ? static_cast<int>(a.value) < static_cast<int>(b) : a.value < b;
    switch (a.kind) {
        case Reduce::add:
            return a.value + b;
        case Reduce::smallest:
            return less ? a.value : b;
        case Reduce::largest:
            return less ? b : a.value;
        case Reduce::bit_and:
            return a.value & b;
        case Reduce::bit_or:
            return a.value | b;
        case Reduce::bit_xor:
            return a.value ^ b;
    }
    return 0;
}

GoOn reduce_all(Warp&, const Operands& operands) {
    ReduceOperand sum{};
    bool first = true;
    for (const void* own : operands) {
        const auto* operand = static_cast<const ReduceOperand*>(own);
        if (operand == nullptr) continue;
        if (std::exchange(first, false)) {
            sum = *operand;
        } else {
            sum.value = combine(sum, operand->value);
        }
    }
    for (void* own : operands) {
        if (own != nullptr) static_cast<ReduceOperand*>(own)->value = sum.value;
    }
    return GoOn::all;
}

GoOn meet_only(Warp&, const Operands&) { return GoOn::all; }

}  // namespace

void Machine::meet_aligned(const Instruction& instruction, void* operand, Warp::Perform perform, Where where) {
    scheduler_.current().warp->meet(instruction, full_warp, operand, perform, where);
}

void Machine::barrier_sync(unsigned barrier, unsigned count, Where where) {
    BarrierOperand operand{barrier, count, true, where};
    meet_aligned({"bar.sync", true, static_cast<long>(barrier), count}, &operand, meet_at_barrier, where);
}

void Machine::barrier_arrive(unsigned barrier, unsigned count, Where where) {
    BarrierOperand operand{barrier, count, false, where};
    meet_aligned({"bar.arrive", true, static_cast<long>(barrier), count}, &operand, meet_at_barrier, where);
}

void Machine::sync_warp(unsigned mask, Where where) {
    scheduler_.current().warp->meet({"__syncwarp"}, mask, nullptr, meet_only, where);
}

unsigned long long Machine::shuffle(Shuffle kind, unsigned mask, unsigned long long bits, unsigned operand, int width,
                                    Where where) {
    constexpr const char* names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
    ShuffleOperand shuffle{kind, bits, operand, width};
    scheduler_.current().warp->meet({names[static_cast<int>(kind)]}, mask, &shuffle, exchange, where);
    return shuffle.bits;
}

unsigned Machine::match_any(unsigned mask, unsigned long long bits, Where where) {
    MatchOperand operand{bits, 0};
    scheduler_.current().warp->meet({"__match_any_sync"}, mask, &operand, match, where);
    return operand.lanes;
}

unsigned Machine::vote(Vote kind, unsigned mask, bool predicate, Where where) {
    constexpr const char* names[] = {"__ballot_sync", "__any_sync", "__all_sync"};
    VoteOperand operand{kind, predicate, 0};
    scheduler_.current().warp->meet({names[static_cast<int>(kind)]}, mask, &operand, count_votes, where);
    return operand.result;
}

unsigned Machine::reduce(Reduce kind, bool is_signed, unsigned mask, unsigned value, Where where) {
    constexpr const char* names[] = {"__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
                                     "__reduce_and_sync", "__reduce_or_sync",  "__reduce_xor_sync"};
    ReduceOperand operand{kind, is_signed, value};
    scheduler_.current().warp->meet({names[static_cast<int>(kind)]}, mask, &operand, reduce_all, where);
    return operand.value;
}

}  // namespace smlora::emulator
