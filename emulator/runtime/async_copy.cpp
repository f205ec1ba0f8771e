#include "runtime/async_copy.hpp"

#include "runtime/machine.hpp"
#include "runtime/poison.hpp"

#include <fmt/format.h>

#include <cstring>

namespace smlora::emulator {

void CopyQueue::issue(Machine& machine, void* target, const void* source, unsigned bytes, unsigned source_bytes) {
    machine_ = &machine;
    cluster_ = &machine.cluster();
    poison(target, bytes);
    items_.push_back({Kind::copy, bytes, source_bytes, target, source});
    machine.scheduler().add(*this);
}

void CopyQueue::commit() {
    items_.push_back({Kind::group_end});
    ++groups_;
}

bool CopyQueue::perform_one() {
    if (items_.empty()) return false;
    const Item item = items_.front();
    items_.pop_front();
    switch (item.kind) {
        case Kind::copy:
            if (item.source_bytes != 0) std::memcpy(item.target, item.source, item.source_bytes);
            std::memset(static_cast<char*>(item.target) + item.source_bytes, 0, item.bytes - item.source_bytes);
            break;
        case Kind::group_end:
            --groups_;
            break;
        case Kind::arrive: {
            const Machine::ActingFor acting(*machine_, *cluster_);
            machine_->arrive(item.barrier, item.where);
            break;
        }
    }
    return !items_.empty();
}

void CopyQueue::arrive_then(Machine& machine, unsigned barrier, Where where) {
    machine_ = &machine;
    cluster_ = &machine.cluster();
    Item item{Kind::arrive};
    item.barrier = barrier;
    item.where = where;
    items_.push_back(item);
    machine.scheduler().add(*this);
}

void CopyQueue::wait(unsigned pending) {
    while (groups_ > pending) perform_one();
    if (items_.empty() && listed) machine_->scheduler().remove(*this);
}

void CopyQueue::finish() {
    while (perform_one()) {
    }
    if (listed) machine_->scheduler().remove(*this);
}

void CopyQueue::clear() {
    items_.clear();
    groups_ = 0;
    listed = false;
}

void Machine::cp_async(unsigned target, const void* source, unsigned bytes, unsigned source_bytes, Where where) {
    char* const to = shared(target, bytes, bytes, "cp.async", where);
    if (source_bytes > bytes) {
        scheduler_.fail(fmt::format("cp.async at {}:{}: {} of {} bytes", where.file, where.line, source_bytes, bytes));
    }
    // The hardware wants an aligned address even if it reads nothing there.
    if (source_bytes != 0) check_global(source, source_bytes, 1, "cp.async", where);
    if (reinterpret_cast<unsigned long>(source) % bytes != 0) {
        scheduler_.fail(fmt::format("cp.async at {}:{}: source {} is not aligned to {} bytes", where.file, where.line,
                                    source, bytes));
    }
    note_store(target, bytes);
    scheduler_.current().copies.issue(*this, to, source, bytes, source_bytes);
}

void Machine::cp_async_commit() { scheduler_.current().copies.commit(); }

void Machine::cp_async_wait(unsigned pending_groups, Where) {
    scheduler_.current().copies.wait(pending_groups);
    scheduler_.yield_sometimes();
}

}  // namespace smlora::emulator
