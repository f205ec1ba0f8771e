#include "runtime/wgmma.hpp"

#include "runtime/format.hpp"
#include "runtime/machine.hpp"
#include "runtime/poison.hpp"
#include "runtime/tensor_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace smlora::emulator {
namespace {

/// A matrix descriptor, PTX ISA, "Matrix descriptor format".
struct Descriptor {
    unsigned start, leading, stride, base_offset;
    unsigned row_bytes;  ///< of the swizzle; 16: none

    explicit Descriptor(std::uint64_t bits)
        : start(static_cast<unsigned>(bits & 0x3fffU) << 4),
          leading(static_cast<unsigned>(bits >> 16 & 0x3fffU) << 4),
          stride(static_cast<unsigned>(bits >> 32 & 0x3fffU) << 4),
          base_offset(static_cast<unsigned>(bits >> 49 & 7U)),
          row_bytes(bits >> 62 == 0 ? 16U : 256U >> (bits >> 62)) {}

    /// Bits that no field has.
    [[nodiscard]] static bool has_stray_bits(std::uint64_t bits) {
        return (bits & ~(0x3fffULL | 0x3fffULL << 16 | 0x3fffULL << 32 | 7ULL << 49 | 3ULL << 62)) != 0;
    }

    /// Where the eight elements lie that are contiguous: of a matrix with the reduction contiguous, row `major` (an m
    /// or n index), chunk `chunk` of the 16 k; else k index `major`, m or n indices 8 `chunk` to 8 `chunk` + 7.
    /// Canonical layouts as in the PTX ISA, "Strides", and CUTLASS's make_gmma_desc.
    [[nodiscard]] unsigned chunk_at(bool strided, unsigned major, unsigned chunk) const {
        const unsigned chunks_a_row = row_bytes / 16;
        unsigned address = start + major % 8 * row_bytes;
        if (!strided) {
            address += major / 8 * stride + chunk * (row_bytes == 16 ? leading : 16);
        } else if (row_bytes == 16) {
            address += major / 8 * leading + chunk * stride;
        } else {
            address += major / 8 * stride + chunk % chunks_a_row * 16 + chunk / chunks_a_row * leading;
        }
        return swizzled(address, row_bytes == 16 ? 0 : row_bytes);
    }
};

}  // namespace

void WgmmaQueue::begin(Machine& machine, Warp& warp) {
    machine_ = &machine;
    warp_ = &warp;
    issued_.clear();
    items_.clear();
    in_flight_.clear();
    group_ = 0;
    fenced_ = false;
    listed = false;
}

void WgmmaQueue::fence() { fenced_ = true; }

WgmmaQueue::Accumulators& WgmmaQueue::accumulators_of(const std::array<float*, 32>& d, unsigned count, Where where) {
    const auto refuse = [&](const std::string& why) {
        machine_->scheduler().fail(fmt::format("wgmma at {}:{}: {}", where.file, where.line, why));
    };
    for (const auto& known : in_flight_) {
        if (known->registers[0] != d[0]) continue;
        if (known->registers != d || known->count != count) {
            refuse("accumulators of another shape are still in flight in the same registers");
        }
        for (float* registers : d) {
            if (first_written(registers, count * sizeof(float)) != count * sizeof(float)) {
                refuse("accumulators were written to while they were in flight");
            }
        }
        return *known;
    }
    if (!fenced_) refuse("no wgmma.fence since the accumulators were the threads'");
    auto made = std::make_unique<Accumulators>();
    made->registers = d;
    made->count = count;
    for (float* registers : d) {
        made->values.insert(made->values.end(), registers, registers + count);
        poison(registers, count * sizeof(float));
    }
    in_flight_.push_back(std::move(made));
    return *in_flight_.back();
}

void WgmmaQueue::issue(const WgmmaShape& shape, const std::array<float*, 32>& d, Where where) {
    Accumulators& accumulators = accumulators_of(d, shape.n / 2, where);
    accumulators.last_group = group_;
    unsigned seen = machine_->now;
    for (unsigned lane = 0; lane < 32; ++lane) seen = std::min(seen, warp_->thread(lane).fenced);
    issued_.push_back(shape);
    items_.push_back({shape, &accumulators, group_, seen, where});
    machine_->scheduler().add(*this);
}

void WgmmaQueue::commit() { ++group_; }

bool WgmmaQueue::perform_one() {
    if (items_.empty()) return false;
    multiply(items_.front());
    items_.pop_front();
    return !items_.empty();
}

void WgmmaQueue::wait(unsigned pending_groups) {
    const unsigned done = group_ > pending_groups ? group_ - pending_groups : 0;
    while (!items_.empty() && items_.front().group < done) perform_one();
    if (items_.empty()) machine_->scheduler().remove(*this);
    for (auto at = in_flight_.begin(); at != in_flight_.end();) {
        const Accumulators& finished = **at;
        if (finished.last_group >= done) {
            ++at;
            continue;
        }
        for (unsigned lane = 0; lane < 32; ++lane) {
            std::copy_n(finished.values.begin() + static_cast<std::ptrdiff_t>(lane * finished.count), finished.count,
                        finished.registers[lane]);
        }
        at = in_flight_.erase(at);
        fenced_ = false;
    }
}

void WgmmaQueue::end() {
    if (!in_flight_.empty()) machine_->scheduler().fail("the warp has ended without waiting for its wgmmas");
}

void WgmmaQueue::check_seen(const Item& item, unsigned offset) const {
    Block& block = *warp_->thread(0).block;
    const SharedStore& store = block.shared().stores()[offset / 16];
    if (store.time == 0 || store.time < item.seen || store.time < block.thread(store.thread).fenced) return;
    machine_->scheduler().fail(
        fmt::format("wgmma at {}:{} reads shared memory at {:#x} that thread {} has written, without a "
                    "fence.proxy.async between",
                    item.where.file, item.where.line, offset, store.thread));
}

void WgmmaQueue::read_operand(const Item& item, std::uint64_t bits, bool strided, unsigned first, unsigned count,
                              float* to) const {
    const Descriptor descriptor(bits);
    SharedMemory& memory = warp_->thread(0).block->shared();
    const auto chunk = [&](unsigned major, unsigned number, std::uint16_t(&elements)[8]) {
        const unsigned offset = descriptor.chunk_at(strided, major, number);
        if (!memory.holds(offset, 16)) {
            machine_->scheduler().fail(
                fmt::format(
                    "wgmma at {}:{}: descriptor {:#x} (start {:#x}, leading {}, stride {}, rows of {}) reads {:#x}, "
                    "which is outside of the block's shared memory",
                    item.where.file, item.where.line, bits, descriptor.start, descriptor.leading, descriptor.stride,
                    descriptor.row_bytes, offset),
                Failure::Kind::address);
        }
        check_seen(item, offset);
        std::memcpy(elements, memory.window() + offset, 16);
    };
    std::uint16_t elements[8];
    if (!strided) {
        for (unsigned i = 0; i < count; ++i) {
            for (unsigned number = 0; number < 2; ++number) {
                chunk(first + i, number, elements);
                for (unsigned k = 0; k < 8; ++k) to[i * 16 + number * 8 + k] = float_of(item.shape.format, elements[k]);
            }
        }
    } else {
        for (unsigned k = 0; k < 16; ++k) {
            for (unsigned i = 0; i < count; i += 8) {
                chunk(k, (first + i) / 8, elements);
                for (unsigned j = 0; j < 8; ++j) to[(i + j) * 16 + k] = float_of(item.shape.format, elements[j]);
            }
        }
    }
}

void WgmmaQueue::multiply(const Item& item) {
    const WgmmaShape& shape = item.shape;
    float a[16][16];
    std::vector<float> b(std::size_t{shape.n} * 16);
    const unsigned warp_of_group = warp_->thread(0).number / 32 % 4;
    read_operand(item, shape.a, shape.a_strided, warp_of_group * 16, 16, &a[0][0]);
    read_operand(item, shape.b, shape.b_strided, 0, shape.n, b.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
        float* const d = item.accumulators->values.data() + std::size_t{lane} * item.accumulators->count;
        for (unsigned i = 0; i < item.accumulators->count; ++i) {
            const float* const row = a[lane / 4 + (i / 2 % 2) * 8];
            const float* const column = b.data() + std::size_t{i / 4 * 8 + lane % 4 * 2 + i % 2} * 16;
            float sum = 0;
            for (unsigned k = 0; k < 16; ++k) sum += row[k] * column[k];
            d[i] += sum;
        }
    }
}

namespace {

struct WgmmaOperand {
    Machine* machine;
    float* d;
    WgmmaShape shape;
    Where where;
};

GoOn issue_wgmma(Warp& warp, const Operands& operands) {
    std::array<float*, 32> d{};
    const auto& first = *static_cast<const WgmmaOperand*>(operands[0]);
    const auto refuse = [&](const std::string& why) {
        first.machine->scheduler().fail(fmt::format("wgmma at {}:{}: {}", first.where.file, first.where.line, why));
    };
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto& operand = *static_cast<const WgmmaOperand*>(operands[lane]);
        d[lane] = operand.d;
        if (operand.shape != first.shape) {
            refuse(fmt::format("lane {} has descriptors {:#x} and {:#x}, lane 0 has {:#x} and {:#x}", lane,
                               operand.shape.a, operand.shape.b, first.shape.a, first.shape.b));
        }
    }
    Block& block = *warp.thread(0).block;
    const unsigned number = warp.thread(0).number / 32;
    const std::size_t index = warp.wgmmas().issued().size();
    for (unsigned other = number / 4 * 4; other < number / 4 * 4 + 4; ++other) {
        const auto& issued = block.warp(other).wgmmas().issued();
        if (index < issued.size() && issued[index] != first.shape) {
            refuse(
                fmt::format("instruction {} of warp {} has descriptors {:#x} and {:#x} and {} columns, that of warp "
                            "{} has {:#x}, {:#x} and {}",
                            index, number, first.shape.a, first.shape.b, first.shape.n, other, issued[index].a,
                            issued[index].b, issued[index].n));
        }
    }
    warp.wgmmas().issue(first.shape, d, first.where);
    return GoOn::all;
}

GoOn fence_wgmma(Warp& warp, const Operands&) {
    warp.wgmmas().fence();
    return GoOn::all;
}

GoOn commit_wgmma(Warp& warp, const Operands&) {
    warp.wgmmas().commit();
    return GoOn::all;
}

GoOn wait_wgmma(Warp& warp, const Operands& operands) {
    warp.wgmmas().wait(*static_cast<const unsigned*>(operands[0]));
    return GoOn::all;
}

}  // namespace

void Machine::wgmma(Format format, unsigned n, bool a_strided, bool b_strided, float* d, unsigned long long a,
                    unsigned long long b, Where where) {
    const auto refuse = [&](const std::string& why) {
        scheduler_.fail(fmt::format("wgmma at {}:{}: {}", where.file, where.line, why));
    };
    require_whole_warp("wgmma", where);
    if (scheduler_.current().number / 128 * 128 + 128 > scheduler_.current().block->threads()) {
        refuse("the block's last warps are no whole warpgroup");
    }
    if (n == 0 || n % 8 != 0 || n > 256) refuse(fmt::format("{} columns", n));
    for (const unsigned long long bits : {a, b}) {
        if (Descriptor::has_stray_bits(bits)) refuse(fmt::format("descriptor {:#x} has bits of no field", bits));
        if (Descriptor(bits).base_offset != 0) refuse("a base offset is not emulated");
    }
    WgmmaOperand operand{this, d, {format, n, a_strided, b_strided, a, b}, where};
    meet_aligned({"wgmma.mma_async", true}, &operand, issue_wgmma, where);
}

void Machine::wgmma_fence(Where where) { meet_aligned({"wgmma.fence", true}, nullptr, fence_wgmma, where); }

void Machine::wgmma_commit(Where where) { meet_aligned({"wgmma.commit_group", true}, nullptr, commit_wgmma, where); }

void Machine::wgmma_wait(unsigned pending_groups, Where where) {
    meet_aligned({"wgmma.wait_group", true}, &pending_groups, wait_wgmma, where);
}

}  // namespace smlora::emulator
