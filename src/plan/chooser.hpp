// What decides which candidates a plan is made of.
#pragma once

#include "gpu/device.hpp"
#include "plan/call_rows.hpp"
#include "plan/plan.hpp"

#include <smlora/problem.hpp>

#include <cuda.h>

#include <cstddef>

namespace smlora::plan {

/// Thread-safe.
class Chooser {
 public:
    virtual ~Chooser() = default;

    /// From what is known already. Measures nothing and needs no GPU.
    [[nodiscard]] virtual Choices known(const Problem& problem, const Request& request,
                                        const gpu::DeviceFacts& facts) = 0;

    struct Recorded {
        std::size_t works = 0;     ///< pieces of work that have candidates
        std::size_t recorded = 0;  ///< of them, those whose fastest candidate was measured for this number of tokens
    };
    /// How much of known() is measured. Needs no GPU.
    [[nodiscard]] virtual Recorded recorded(const Problem& problem, const Request& request,
                                            const gpu::DeviceFacts& facts) = 0;

    /// As known(), but what is not known may be measured first, on the rows of the call, which are valid on `stream`.
    /// A measurement that fails throws nothing: the choice is then the one without it.
    [[nodiscard]] virtual Choices choose(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts,
                                         const CallRows& rows, CUstream stream) = 0;
};

}  // namespace smlora::plan
