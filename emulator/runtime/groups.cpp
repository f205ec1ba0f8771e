// What sm_90 has for groups of threads: clusters, register shares, grids that overlap; and the asynchronous proxy.
#include "runtime/machine.hpp"

#include <fmt/format.h>

#include <utility>

namespace smlora::emulator {
namespace {

GoOn arrive_at_cluster(Warp& warp, const Operands& operands) {
    std::vector<GpuThread*> waiting;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (operands[lane] != nullptr) waiting.push_back(&warp.thread(lane));
    }
    return waiting.front()->block->cluster().arrive(waiting) ? GoOn::current : GoOn::none;
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
    if (rank >= cluster().count()) {
        scheduler_.fail(
            fmt::format("mapa at {}:{}: block {} of a cluster of {}", where.file, where.line, rank, cluster().count()));
    }
    return (address & 0xffffffU) | rank << 24;
}

void Machine::cluster_sync(Where where) { meet_aligned({"barrier.cluster", true}, this, arrive_at_cluster, where); }

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

void Machine::wait_for_earlier_kernels(Where where) {
    scheduler_.yield_sometimes();
    cluster().wait_for_end_of_earlier(where);
}

void Machine::let_next_kernel_begin() {
    cluster().let_next_begin();
    scheduler_.yield_sometimes();
}

}  // namespace smlora::emulator
