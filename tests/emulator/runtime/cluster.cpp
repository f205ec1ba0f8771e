// Clusters, the asynchronous proxy, register shares, and grids that depend on one another.
#include "runtime/machine.hpp"

#include <fmt/format.h>

#include <utility>

namespace smlora::emulator {
namespace {

struct ClusterOperand {
    Machine* machine;
};

GoOn arrive_at_cluster(Warp& warp, const Operands& operands) {
    const ClusterOperand* any = nullptr;
    std::vector<GpuThread*> waiting;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (operands[lane] == nullptr) continue;
        any = static_cast<const ClusterOperand*>(operands[lane]);
        waiting.push_back(&warp.thread(lane));
    }
    return any->machine->arrive_at_cluster(waiting) ? GoOn::current : GoOn::none;
}

struct RegisterOperand {
    Machine* machine;
    bool more;
    unsigned count;
    Where where;
};

GoOn change_registers(Warp& warp, const Operands& operands) {
    const auto& operand = *static_cast<const RegisterOperand*>(operands[0]);
    const unsigned had = warp.registers();
    if (operand.more ? operand.count < had : operand.count > had) {
        operand.machine->scheduler().fail(fmt::format("setmaxnreg.{} at {}:{}: from {} to {} registers",
                                                      operand.more ? "inc" : "dec", operand.where.file,
                                                      operand.where.line, had, operand.count));
    }
    return GoOn::all;
}

}  // namespace

void Machine::fence_proxy_async() { scheduler_.current().fenced = ++now; }

unsigned Machine::cluster_block_rank() { return scheduler_.current().block->rank(); }

unsigned Machine::map_shared_rank(unsigned address, unsigned rank, Where where) {
    if (rank >= cluster_blocks_) {
        scheduler_.fail(
            fmt::format("mapa at {}:{}: block {} of a cluster of {}", where.file, where.line, rank, cluster_blocks_));
    }
    return (address & 0xffffffU) | rank << 24;
}

bool Machine::arrive_at_cluster(const std::vector<GpuThread*>& waiting) {
    ++cluster_barrier_.arrived;
    cluster_barrier_.waiting.insert(cluster_barrier_.waiting.end(), waiting.begin(), waiting.end());
    unsigned warps = 0;
    for (unsigned rank = 0; rank < cluster_blocks_; ++rank) warps += blocks_[rank]->live_warps();
    if (cluster_barrier_.arrived < warps) return false;
    bool current_waits = false;
    for (GpuThread* thread : std::exchange(cluster_barrier_, {}).waiting) {
        if (thread == &scheduler_.current()) {
            current_waits = true;
        } else {
            scheduler_.wake(*thread);
        }
    }
    return current_waits;
}

void Machine::cluster_sync(Where where) {
    ClusterOperand operand{this};
    meet_aligned({"barrier.cluster", true}, &operand, emulator::arrive_at_cluster, where);
}

void Machine::set_registers(bool more, unsigned count, Where where) {
    if (count % 8 != 0 || count < 24 || count > 256) {
        scheduler_.fail(
            fmt::format("setmaxnreg at {}:{}: {} is no multiple of 8 from 24 to 256", where.file, where.line, count));
    }
    RegisterOperand operand{this, more, count, where};
    const Instruction instruction{more ? "setmaxnreg.inc" : "setmaxnreg.dec", true};
    meet_aligned(instruction, &operand, change_registers, where);
    GpuThread& thread = scheduler_.current();
    // The first lane of each warp does it for all; the others wait for it.
    Warp& warp = *thread.warp;
    if (thread.lane == 0) {
        while (!thread.block->share_registers(warp, count))
            scheduler_.wait_for_change({instruction, " registers", where});
    }
    scheduler_.current().warp->meet(
        instruction, 0xffffffffU, nullptr, [](Warp&, const Operands&) { return GoOn::all; }, where);
}

void Machine::wait_for_earlier_kernels(Where) { scheduler_.yield_sometimes(); }

void Machine::let_next_kernel_begin() { scheduler_.yield_sometimes(); }

}  // namespace smlora::emulator
