// One problem, how many tokens, how they are routed and how the tensors lie in memory.
#pragma once

#include "workload/routing.hpp"

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>

#include <ostream>
#include <string>

namespace smlora::workload {

/// How A [E, R, K] and B [E, N, R] are stored; r and e name rank and expert.
enum class AdapterLayout {
    seed,             ///< A [E*R, K], row e*R + r; B [N, E*R], column e*R + r
    contiguous,       ///< A [E, R, K]; B [E, N, R]
    peft,             ///< A as in seed; B [N, R*E], column r*E + e
    transposed,       ///< A [K, E*R]; B [E*R, N]
    peft_transposed,  ///< A [K, E*R]; B [R*E, N], row r*E + e
    gapped,           ///< contiguous with unused elements after each row
};

struct Case {
    std::string name = {};
    Problem problem = {};
    std::int64_t T = 0;
    std::int64_t T_on_cpu = -1;  ///< on the CPU backend, which takes longer; -1: T
    Choice choice = Choice::distinct;
    double left_out = 0;  ///< share of entries that are -1
    AdapterLayout adapter = AdapterLayout::seed;
    std::int64_t row_gap = 0;     ///< unused elements after each row of x, y, dx and dy
    std::int64_t shift = 0;       ///< elements by which the tensors start off a 256-byte boundary
    std::int64_t expert_gap = 0;  ///< unused elements after each matrix of W
    float scaling = 2.0F;
    bool weight = true;   ///< false: there is no W; the case is for backward_lora, which does not read it
    bool decoded = true;  ///< false: nobody asks what quantised weights are decoded to, which takes time and memory

    [[nodiscard]] std::int64_t tokens(Backend backend) const {
        return backend == Backend::cpu && T_on_cpu >= 0 ? T_on_cpu : T;
    }
    friend std::ostream& operator<<(std::ostream& out, const Case& c) {
        return out << to_string(c.problem) << " T" << c.T;
    }
};

}  // namespace smlora::workload
