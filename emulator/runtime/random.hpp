// The source of every choice that a launch makes at random.
#pragma once

#include <cstdint>

namespace smlora::emulator {

/// splitmix64: small, and any seed will do.
class Random {
 public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
        return z ^ (z >> 31);
    }
    /// 0 .. end - 1; end is not 0.
    unsigned below(unsigned end) { return static_cast<unsigned>((next() >> 32) * end >> 32); }
    /// True one time in `times` on the average; never if it is 0.
    bool once_in(unsigned times) { return times != 0 && below(times) == 0; }

 private:
    std::uint64_t state_;
};

}  // namespace smlora::emulator
