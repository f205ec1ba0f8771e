// What the tuner needs of a machine: all that it knows of GPUs.
#pragma once

#include "tuning/candidate.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace smlora::tuning {

/// What compiling a part of a candidate showed.
struct Preparation {
    std::string refusal;  ///< why it cannot be used; empty: it can
    std::int64_t registers = 0;
    std::int64_t spill_bytes = 0;
    double compile_seconds = 0;  ///< 0 when it was in the cache
};

/// What comparing a candidate's result with the reference's showed.
struct Verification {
    std::string refusal;  ///< where and by how much it is wrong; empty: it is right
    double error = 0;     ///< the relative error by norm
};

struct MemoryNeed {
    std::uint64_t fixed_bytes = 0;  ///< whatever the number of sets
    std::uint64_t set_bytes = 0;    ///< of one set of operands
    std::uint64_t l2_bytes = 0;
    std::uint64_t free_bytes = 0;  ///< on the device, now
};

/// One piece of work on one device. Only now(), the find and the prepare functions are called from several threads at
/// once. Errors other than those that a result can tell are thrown, and end the tuning.
class Device {
 public:
    virtual ~Device() = default;

    /// Seconds, from any beginning.
    virtual double now() = 0;

    virtual MemoryNeed memory_need() = 0;

    /// Kernels that a candidate, and the reference, consist of at most: the parts that prepare() takes one by one.
    virtual std::size_t parts() = 0;

    /// What is known of a part that need not be compiled, be it that it is compiled already or that the candidate has
    /// no such part; nothing for one that prepare() would compile. Takes next to no time.
    virtual std::optional<Preparation> find(const Candidate& candidate, std::size_t part) = 0;

    /// Compiles a part of the candidate, one kernel; runs nothing.
    virtual Preparation prepare(const Candidate& candidate, std::size_t part) = 0;

    /// The same of what verify() compares with, whose kernels are numbered likewise.
    virtual std::optional<Preparation> find_reference(std::size_t part) = 0;
    virtual Preparation prepare_reference(std::size_t part) = 0;

    /// Makes `sets` sets of operands to time with, and inputs drawn from `seed` to check on. Called once.
    virtual void allocate(int sets, std::uint64_t seed) = 0;

    /// Runs the candidate on the inputs that were drawn and compares with the reference.
    virtual Verification verify(const Candidate& candidate) = 0;

    /// One sample: the seconds that the candidate takes on the device with the operands of `set`. In the same `round`
    /// all candidates meet the same rows, where rows are made up also in another tuning of the same work; in the next
    /// round they may meet others.
    virtual double time(const Candidate& candidate, int set, std::size_t round) = 0;
};

}  // namespace smlora::tuning
