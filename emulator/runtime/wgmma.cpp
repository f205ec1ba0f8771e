#include "runtime/wgmma.hpp"

#include "runtime/format.hpp"
#include "runtime/machine.hpp"
#include "runtime/poison.hpp"
#include "runtime/tensor_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

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
    accumulators_.clear();
    fragments_.clear();
    fenced_stacks_.fill({});
    group_ = 0;
    fenced_ = false;
    listed = false;
}

char* WgmmaQueue::Stack::find(const void* memory, std::size_t count) {
    const std::uintptr_t offset = reinterpret_cast<std::uintptr_t>(memory) - low;
    return offset < bytes.size() && count <= bytes.size() - offset ? bytes.data() + offset : nullptr;
}

void WgmmaQueue::fence(const Operands& frames) {
    fenced_ = true;
    for (unsigned lane = 0; lane < 32; ++lane) {
        const GpuThread& thread = warp_->thread(lane);
        const auto* const low = static_cast<const char*>(frames[lane]);
        fenced_stacks_[lane].low = reinterpret_cast<std::uintptr_t>(low);
        fenced_stacks_[lane].bytes.assign(low, reinterpret_cast<const char*>(thread.stack_low) + thread.stack_bytes);
    }
}

void WgmmaQueue::refuse(Where where, const std::string& why) const {
    machine_->scheduler().fail(fmt::format("wgmma at {}:{}: {}", where.file, where.line, why));
}

template <class T>
constexpr const char* name_of = std::is_same_v<T, float> ? "accumulators" : "registers of a";

template <class T>
void WgmmaQueue::check_untouched(const InFlight<T>& held, const Operands& frames) const {
    const std::size_t bytes = held.count * sizeof(T);
    for (unsigned lane = 0; lane < 32; ++lane) {
        const void* const registers = held.registers[lane];
        if (registers >= frames[lane] && first_written(registers, bytes) == bytes) continue;
        refuse(held.where, fmt::format("{} of lane {} were written to, or their array has ended, while they were in "
                                       "flight",
                                       name_of<T>, lane));
    }
}

template <class T>
WgmmaQueue::InFlight<T>* WgmmaQueue::find(const Set<T>& set, const std::array<T*, 32>& registers, unsigned count,
                                          Where where) const {
    for (const auto& held : set) {
        if (held->registers[0] != registers[0]) continue;
        if (held->registers != registers || held->count != count) {
            refuse(where, fmt::format("{} of another shape are still in flight in the same registers", name_of<T>));
        }
        check_untouched(*held, {});
        return held.get();
    }
    return nullptr;
}

template <class T>
WgmmaQueue::InFlight<T>& WgmmaQueue::take(Set<T>& set, const std::array<T*, 32>& registers, unsigned count) {
    auto taken = std::make_unique<InFlight<T>>();
    taken->registers = registers;
    taken->count = count;
    for (T* of_lane : registers) {
        taken->values.insert(taken->values.end(), of_lane, of_lane + count);
        poison(of_lane, count * sizeof(T));
    }
    set.push_back(std::move(taken));
    return *set.back();
}

WgmmaQueue::Accumulators& WgmmaQueue::accumulators_of(const std::array<float*, 32>& d, unsigned count, Where where) {
    if (Accumulators* const held = find(accumulators_, d, count, where)) return *held;
    if (!fenced_) refuse(where, "no wgmma.fence since the accumulators were the threads'");
    return take(accumulators_, d, count);
}

WgmmaQueue::Fragments& WgmmaQueue::fragments_of(const std::array<unsigned*, 32>& a, Where where) {
    constexpr unsigned count = 4;
    if (Fragments* const held = find(fragments_, a, count, where)) return *held;
    for (unsigned lane = 0; lane < 32; ++lane) {
        const char* const fenced = fenced_stacks_[lane].find(a[lane], count * sizeof(unsigned));
        if (fenced == nullptr || std::memcmp(fenced, a[lane], count * sizeof(unsigned)) != 0) {
            refuse(where, fmt::format("no wgmma.fence since lane {} wrote the registers of a", lane));
        }
    }
    return take(fragments_, a, count);
}

void WgmmaQueue::issue(const WgmmaShape& shape, const std::array<float*, 32>& d, const std::array<unsigned*, 32>& a,
                       Where where) {
    Fragments* const fragments = shape.a_in_registers ? &fragments_of(a, where) : nullptr;
    Accumulators& accumulators = accumulators_of(d, shape.n / 2, where);
    const auto used = [&](auto& registers) {
        registers.last_group = group_;
        registers.where = where;
    };
    used(accumulators);
    if (fragments != nullptr) used(*fragments);
    unsigned seen = machine_->now;
    for (unsigned lane = 0; lane < 32; ++lane) seen = std::min(seen, warp_->thread(lane).fenced);
    issued_.push_back(shape);
    items_.push_back({shape, &accumulators, fragments, group_, seen, where});
    machine_->scheduler().add(*this);
}

void WgmmaQueue::commit() { ++group_; }

bool WgmmaQueue::perform_one() {
    if (items_.empty()) return false;
    multiply(items_.front());
    items_.pop_front();
    return !items_.empty();
}

template <class T>
bool WgmmaQueue::give_back(Set<T>& set, unsigned groups_done, const Operands& frames) {
    bool any = false;
    for (auto at = set.begin(); at != set.end();) {
        const InFlight<T>& finished = **at;
        if (finished.last_group >= groups_done) {
            ++at;
            continue;
        }
        check_untouched(finished, frames);
        const std::size_t bytes = finished.count * sizeof(T);
        for (unsigned lane = 0; lane < 32; ++lane) {
            T* const registers = finished.registers[lane];
            const T* const values = finished.values.data() + std::size_t{lane} * finished.count;
            std::memcpy(registers, values, bytes);
            // No thread has written to them since the fence.
            if (char* const fenced = fenced_stacks_[lane].find(registers, bytes)) std::memcpy(fenced, values, bytes);
        }
        at = set.erase(at);
        any = true;
    }
    return any;
}

void WgmmaQueue::wait(unsigned pending_groups, const Operands& frames) {
    const unsigned done = group_ > pending_groups ? group_ - pending_groups : 0;
    while (!items_.empty() && items_.front().group < done) perform_one();
    if (items_.empty()) machine_->scheduler().remove(*this);
    give_back(fragments_, done, frames);
    if (give_back(accumulators_, done, frames)) fenced_ = false;
}

void WgmmaQueue::end() {
    if (!accumulators_.empty()) machine_->scheduler().fail("the warp has ended without waiting for its wgmmas");
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

void WgmmaQueue::read_fragments(const Item& item, float (&a)[16][16]) {
    for (unsigned lane = 0; lane < 32; ++lane) {
        for (unsigned i = 0; i < 8; ++i) {
            const unsigned bits = item.fragments->values[lane * 4 + i / 2] >> (16 * (i % 2));
            a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] =
                float_of(item.shape.format, static_cast<std::uint16_t>(bits));
        }
    }
}

void WgmmaQueue::multiply(const Item& item) {
    const WgmmaShape& shape = item.shape;
    float a[16][16];
    std::vector<float> b(std::size_t{shape.n} * 16);
    const unsigned warp_of_group = warp_->thread(0).number / 32 % 4;
    if (shape.a_in_registers) {
        read_fragments(item, a);
    } else {
        read_operand(item, shape.a, shape.a_strided, warp_of_group * 16, 16, &a[0][0]);
    }
    read_operand(item, shape.b, shape.b_strided, 0, shape.n, b.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
        float* const d = item.accumulators->values.data() + std::size_t{lane} * item.accumulators->count;
        for (unsigned i = 0; i < item.accumulators->count; ++i) {
            const float* const row = a[lane / 4 + (i / 2 % 2) * 8];
            const float* const column = b.data() + std::size_t{i / 4 * 8 + lane % 4 * 2 + i % 2} * 16;
            float sum = 0;
            for (unsigned k = 0; k < 16; ++k) sum += row[k] * column[k];
            d[i] = shape.accumulate ? d[i] + sum : sum;
        }
    }
}

namespace {

struct WgmmaOperand {
    Machine* machine;
    float* d;
    unsigned* a;
    WgmmaShape shape;
    Where where;
};

std::string text(const WgmmaShape& shape) {
    const std::string a = shape.a_in_registers ? "registers" : fmt::format("descriptor {:#x}", shape.a);
    return fmt::format("{}, descriptor {:#x} and {} columns{}", a, shape.b, shape.n,
                       shape.accumulate ? "" : ", from zero");
}

GoOn issue_wgmma(Warp& warp, const Operands& operands) {
    std::array<float*, 32> d{};
    std::array<unsigned*, 32> a{};
    const auto& first = *static_cast<const WgmmaOperand*>(operands[0]);
    const auto refuse = [&](const std::string& why) {
        first.machine->scheduler().fail(fmt::format("wgmma at {}:{}: {}", first.where.file, first.where.line, why));
    };
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto& operand = *static_cast<const WgmmaOperand*>(operands[lane]);
        d[lane] = operand.d;
        a[lane] = operand.a;
        if (operand.shape != first.shape) {
            refuse(fmt::format("lane {} has {}, lane 0 has {}", lane, text(operand.shape), text(first.shape)));
        }
    }
    Block& block = *warp.thread(0).block;
    const unsigned number = warp.thread(0).number / 32;
    const std::size_t index = warp.wgmmas().issued().size();
    for (unsigned other = number / 4 * 4; other < number / 4 * 4 + 4; ++other) {
        const auto& issued = block.warp(other).wgmmas().issued();
        if (index < issued.size() && issued[index] != first.shape) {
            refuse(fmt::format("instruction {} of warp {} has {}, that of warp {} has {}", index, number,
                               text(first.shape), other, text(issued[index])));
        }
    }
    warp.wgmmas().issue(first.shape, d, a, first.where);
    return GoOn::all;
}

GoOn fence_wgmma(Warp& warp, const Operands& frames) {
    warp.wgmmas().fence(frames);
    return GoOn::all;
}

GoOn commit_wgmma(Warp& warp, const Operands&) {
    warp.wgmmas().commit();
    return GoOn::all;
}

/// The operands are variables of the emulator, below those of the kernel.
GoOn wait_wgmma(Warp& warp, const Operands& operands) {
    warp.wgmmas().wait(*static_cast<const unsigned*>(operands[0]), operands);
    return GoOn::all;
}

}  // namespace

void Machine::begin_wgmma(const WgmmaShape& shape, float* d, const unsigned* a, Where where) {
    const auto refuse = [&](const std::string& why) {
        scheduler_.fail(fmt::format("wgmma at {}:{}: {}", where.file, where.line, why));
    };
    require_whole_warp("wgmma", where);
    const GpuThread& thread = scheduler_.current();
    if (thread.number / 128 * 128 + 128 > thread.block->threads()) {
        refuse("the block's last warps are no whole warpgroup");
    }
    if (shape.n == 0 || shape.n % 8 != 0 || shape.n > 256) refuse(fmt::format("{} columns", shape.n));
    for (const std::uint64_t bits : {shape.a, shape.b}) {
        if (Descriptor::has_stray_bits(bits)) refuse(fmt::format("descriptor {:#x} has bits of no field", bits));
        if (Descriptor(bits).base_offset != 0) refuse("a base offset is not emulated");
    }
    if (a != nullptr && reinterpret_cast<std::uintptr_t>(a) - thread.stack_low >= thread.stack_bytes) {
        refuse("the registers of a are no local array of the thread");
    }
    // The kernel's variable, poisoned for as long as the kernel must not look at it.
    WgmmaOperand operand{this, d, const_cast<unsigned*>(a), shape, where};
    meet_aligned({"wgmma.mma_async", true}, &operand, issue_wgmma, where);
}

void Machine::wgmma(Format format, unsigned n, bool a_strided, bool b_strided, float* d, unsigned long long a,
                    unsigned long long b, Where where) {
    begin_wgmma({format, n, false, a_strided, b_strided, a, b}, d, nullptr, where);
}

void Machine::wgmma_of_registers(Format format, unsigned n, bool b_strided, bool accumulate, float* d,
                                 const unsigned* a, unsigned long long b, Where where) {
    begin_wgmma({format, n, true, false, b_strided, 0, b, accumulate}, d, a, where);
}

void Machine::wgmma_fence(Where where) {
    require_whole_warp("wgmma.fence", where);
    char frame = 0;  // below it, nothing of the kernel's
    meet_aligned({"wgmma.fence", true}, &frame, fence_wgmma, where);
}

void Machine::wgmma_commit(Where where) { meet_aligned({"wgmma.commit_group", true}, nullptr, commit_wgmma, where); }

void Machine::wgmma_wait(unsigned pending_groups, Where where) {
    require_whole_warp("wgmma.wait_group", where);
    meet_aligned({"wgmma.wait_group", true}, &pending_groups, wait_wgmma, where);
}

}  // namespace smlora::emulator
