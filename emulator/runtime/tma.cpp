#include "runtime/tma.hpp"

#include "runtime/machine.hpp"
#include "runtime/poison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace smlora::emulator {

TmaCopy::TmaCopy(Machine& machine, Cluster& cluster, const TensorMap& map,
                 const std::array<int, most_dimensions>& corner, unsigned target, unsigned barrier, Where where)
    : machine_(machine),
      cluster_(cluster),
      map_(map),
      corner_(corner),
      target_(target),
      barrier_(barrier),
      where_(where),
      row_bytes_(static_cast<unsigned>(map.box[0]) * map.element_bytes) {
    for (unsigned i = 1; i < map.dimensions; ++i) rows_ *= map.box[i];
    char* const place = machine.shared(target, bytes(), map.dimensions == 1 ? 16 : 128, "bulk copy", where);
    poison(place, bytes());
    // What the asynchronous proxy writes, it sees.
    std::fill_n(machine.shared_of(target).stores() + (target & 0xffffffU) / 16, bytes() / 16, SharedStore{});
}

bool TmaCopy::perform_one() {
    const Machine::ActingFor acting(machine_, cluster_);
    const unsigned count = 1 + machine_.scheduler().random().below(rows_ - next_row_);
    for (unsigned i = 0; i < count; ++i) copy_row(next_row_++);
    machine_.complete_bytes(barrier_, count * row_bytes_, where_);
    return next_row_ < rows_;
}

void TmaCopy::copy_row(unsigned row) {
    std::uint64_t from = map_.address;
    bool inside = true;
    unsigned rest = row;
    for (unsigned i = 1; i < map_.dimensions; ++i) {
        const std::int64_t at = std::int64_t{corner_[i]} + rest % map_.box[i];
        rest /= map_.box[i];
        inside = inside && at >= 0 && static_cast<std::uint64_t>(at) < map_.sizes[i];
        from += static_cast<std::uint64_t>(at) * map_.strides[i - 1];
    }
    char* const window = machine_.shared_of(target_).window();
    const unsigned to = (target_ & 0xffffffU) + row * row_bytes_;
    for (unsigned byte = 0; byte < row_bytes_; byte += map_.element_bytes) {
        const std::int64_t column = std::int64_t{corner_[0]} + byte / map_.element_bytes;
        char* const place = window + swizzled(to + byte, map_.swizzle_bytes);
        if (inside && column >= 0 && static_cast<std::uint64_t>(column) < map_.sizes[0]) {
            const auto* const source =
                reinterpret_cast<const char*>(from + static_cast<std::uint64_t>(column) * map_.element_bytes);
            machine_.check_global(source, map_.element_bytes, 1, "bulk tensor copy", where_);
            std::memcpy(place, source, map_.element_bytes);
        } else if (map_.fill_with_nan != 0) {
            poison(place, map_.element_bytes);
        } else {
            std::memset(place, 0, map_.element_bytes);
        }
    }
}

void Machine::tma_load(unsigned target, const void* place, unsigned barrier, const int* coordinates,
                       unsigned dimensions, unsigned blocks, Where where) {
    TensorMap map;
    std::memcpy(&map, place, sizeof(map));
    const auto refuse = [&](const std::string& why) {
        scheduler_.fail(fmt::format("bulk tensor copy at {}:{}: {}", where.file, where.line, why));
    };
    if (reinterpret_cast<unsigned long>(place) % 64 != 0) refuse("the tensor map is not aligned to 64 bytes");
    if (map.mark != TensorMap::valid_mark) refuse("the tensor map was not made by cuTensorMapEncodeTiled");
    if (map.dimensions != dimensions) {
        refuse(fmt::format("{} coordinates for a map of {} dimensions", dimensions, map.dimensions));
    }
    std::array<int, most_dimensions> corner{};
    std::copy_n(coordinates, dimensions, corner.begin());
    const unsigned own = scheduler_.current().block->rank();
    if (blocks == 0) {
        blocks = 1U << own;
    } else if (blocks >> cluster().count() != 0) {
        refuse(fmt::format("multicast to blocks {:#x} of a cluster of {}", blocks, cluster().count()));
    }
    for (unsigned rank = 0; rank < cluster().count(); ++rank) {
        if ((blocks >> rank & 1U) == 0) continue;
        const auto in_block = [&](unsigned address) { return (address & 0xffffffU) | rank << 24; };
        mbarrier(in_block(barrier), where);
        auto copy =
            std::make_unique<TmaCopy>(*this, cluster(), map, corner, in_block(target), in_block(barrier), where);
        TmaCopy& work = *copy;
        cluster().add_copy(std::move(copy));
        scheduler_.add(work);
    }
    scheduler_.yield_sometimes();
}

void Machine::bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier, Where where) {
    const auto address = reinterpret_cast<std::uint64_t>(source);
    if (bytes == 0 || bytes % 16 != 0 || address % 16 != 0) {
        scheduler_.fail(fmt::format("bulk copy at {}:{}: {} bytes from {}: not whole units of 16 bytes", where.file,
                                    where.line, bytes, source));
    }
    mbarrier(barrier, where);
    // A box of one dimension.
    TensorMap map;
    map.dimensions = 1;
    map.element_bytes = 16;
    map.address = address;
    map.sizes[0] = bytes / 16;
    map.box[0] = static_cast<std::uint16_t>(bytes / 16);
    auto copy =
        std::make_unique<TmaCopy>(*this, cluster(), map, std::array<int, most_dimensions>{}, target, barrier, where);
    TmaCopy& work = *copy;
    cluster().add_copy(std::move(copy));
    scheduler_.add(work);
    scheduler_.yield_sometimes();
}

}  // namespace smlora::emulator
