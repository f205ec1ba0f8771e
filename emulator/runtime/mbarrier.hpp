// Barriers in shared memory that count arrivals and bytes: PTX ISA, "mbarrier".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace smlora::emulator {

struct GpuThread;

struct Mbarrier {
    unsigned expected = 0;  ///< arrivals of each phase
    unsigned pending = 0;   ///< arrivals that this phase still waits for
    long bytes = 0;         ///< that it still waits for; less than none if they came before they were announced
    unsigned phase = 0;
    std::vector<GpuThread*> waiting;

    /// What is in shared memory at the barrier's place: a kernel that writes over it is found out.
    [[nodiscard]] std::uint64_t word() const {
        return 0xb0a1000000000000U ^ (std::uint64_t{expected} << 42 | std::uint64_t{pending} << 22) ^
               static_cast<std::uint64_t>(bytes) << 1 ^ phase;
    }
    [[nodiscard]] std::string describe() const;
};

/// Those of a block, by their offset in its window.
class Mbarriers {
 public:
    void clear() { barriers_.clear(); }
    [[nodiscard]] Mbarrier* find(unsigned offset) {
        const auto found = barriers_.find(offset);
        return found == barriers_.end() ? nullptr : &found->second;
    }
    Mbarrier& make(unsigned offset) { return barriers_[offset]; }

 private:
    std::map<unsigned, Mbarrier> barriers_;
};

}  // namespace smlora::emulator
