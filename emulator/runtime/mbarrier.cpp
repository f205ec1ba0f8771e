#include "runtime/mbarrier.hpp"

#include "runtime/machine.hpp"

#include <fmt/format.h>

#include <cstring>
#include <utility>

namespace smlora::emulator {
namespace {

constexpr unsigned most_arrivals = (1U << 20) - 1;
constexpr long most_bytes = (1L << 20) - 1;

}  // namespace

std::string Mbarrier::describe() const {
    return fmt::format("{} of {} arrivals and {} bytes are missing in phase {}", pending, expected, bytes, phase);
}

void Machine::refuse_mbarrier(unsigned address, const std::string& why, Where where) {
    scheduler_.fail(fmt::format("mbarrier {:#x} at {}:{}: {}", address, where.file, where.line, why));
}

Mbarrier& Machine::mbarrier(unsigned address, Where where) {
    const char* const place = shared(address, 8, 8, "mbarrier", where);
    Mbarrier* const barrier = shared_of(address).mbarriers().find(address & 0xffffffU);
    if (barrier == nullptr) refuse_mbarrier(address, "it was not initialised", where);
    const std::uint64_t word = barrier->word();
    if (std::memcmp(place, &word, 8) != 0) refuse_mbarrier(address, "its memory was written to", where);
    return *barrier;
}

void Machine::store_mbarrier(unsigned address, const Mbarrier& barrier) {
    const std::uint64_t word = barrier.word();
    std::memcpy(shared_of(address).window() + (address & 0xffffffU), &word, 8);
}

void Machine::update(unsigned address, Mbarrier& barrier) {
    if (barrier.pending == 0 && barrier.bytes == 0) {
        ++barrier.phase;
        barrier.pending = barrier.expected;
        for (GpuThread* thread : std::exchange(barrier.waiting, {})) scheduler_.wake(*thread);
    }
    store_mbarrier(address, barrier);
}

void Machine::mbarrier_init(unsigned address, unsigned count, Where where) {
    shared(address, 8, 8, "mbarrier.init", where);
    if (count == 0 || count > most_arrivals) refuse_mbarrier(address, fmt::format("{} arrivals", count), where);
    if (address >> 24 != scheduler_.current().block->rank()) {
        refuse_mbarrier(address, "it is of another block, which must initialise it itself", where);
    }
    Mbarriers& barriers = shared_of(address).mbarriers();
    if (const Mbarrier* old = barriers.find(address & 0xffffffU); old != nullptr && !old->waiting.empty()) {
        refuse_mbarrier(address, "it is initialised while threads wait at it", where);
    }
    Mbarrier& barrier = barriers.make(address & 0xffffffU);
    barrier = {};
    barrier.expected = count;
    barrier.pending = count;
    store_mbarrier(address, barrier);
}

void Machine::mbarrier_expect(unsigned address, unsigned bytes, Where where) {
    Mbarrier& barrier = mbarrier(address, where);
    barrier.bytes += bytes;
    if (barrier.bytes > most_bytes) refuse_mbarrier(address, fmt::format("{} bytes", barrier.bytes), where);
    store_mbarrier(address, barrier);
}

void Machine::mbarrier_arrive(unsigned address, Where where) {
    scheduler_.yield_sometimes();
    arrive(address, where);
}

void Machine::arrive(unsigned address, Where where) {
    Mbarrier& barrier = mbarrier(address, where);
    if (barrier.pending == 0) {
        refuse_mbarrier(address, "one arrival too many: " + barrier.describe(), where);
    }
    --barrier.pending;
    update(address, barrier);
}

void Machine::complete_bytes(unsigned address, unsigned bytes, Where where) {
    Mbarrier& barrier = mbarrier(address, where);
    barrier.bytes -= bytes;
    if (barrier.bytes < -most_bytes) refuse_mbarrier(address, fmt::format("{} bytes", barrier.bytes), where);
    update(address, barrier);
}

void Machine::mbarrier_wait(unsigned address, unsigned parity, Where where) {
    scheduler_.yield_sometimes();
    for (;;) {
        Mbarrier& barrier = mbarrier(address, where);
        if ((barrier.phase & 1U) != (parity & 1U)) return;
        // A thread that was woken asks again: when it is so late that another phase is complete too, it waits for a
        // phase that is long past.
        barrier.waiting.push_back(&scheduler_.current());
        scheduler_.wait(
            {{"mbarrier.try_wait", false, static_cast<long>(address)}, fmt::format(" for parity {}", parity), where});
    }
}

void Machine::cp_async_arrive(unsigned address, Where where) {
    mbarrier(address, where);
    scheduler_.current().copies.arrive_then(*this, address, where);
}

}  // namespace smlora::emulator
