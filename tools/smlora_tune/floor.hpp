// The least time that an operation can take: every product done once, every input read once, every output written once.
#pragma once

#include <smlora/problem.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace smlora::tool {

/// What `bench` times.
enum class Op {
    base,                 ///< scatter2scatter: forward without the adapter
    forward,              ///< with the adapter
    dx,                   ///< backward_input
    lora_grad,            ///< backward_lora: dA and dB
    step,                 ///< forward, dx and lora_grad, one after the other
    activation,           ///< the gated activation of y's rows, N an even number
    activation_backward,  ///< its gradient
    route,                ///< sorts the entries by expert
    group,                ///< x's rows into expert order
    combine,              ///< rows of width N, gated and summed over a token's choices
    combine_backward,     ///< both of its gradients
    unpack,               ///< dequantize: all experts of a quantised weight
};

[[nodiscard]] std::string_view name(Op op);
/// Nothing for an unknown name.
[[nodiscard]] std::optional<Op> op_from_name(std::string_view text);

/// How many of the routed rows and experts there really are.
struct Load {
    std::int64_t tokens = 0;
    std::int64_t rows = 0;            ///< tokens * top_k less the entries left out
    std::int64_t active_experts = 0;  ///< those with at least one row; the weights of the others need not be read
};

struct Work {
    double flop = 0;
    double bytes = 0;
};

/// M rows, s = size of an element, rows_x = T or M as problem.x_rows says, rows_y likewise, E' the active experts:
///   base       2 M K N                   flop;  s (E' K N + rows_x K + rows_y N)
///   forward    2 M K N + 2 M R (K + N)   flop;  the same + A and B
///   dx         the same                  flop;  the same, and x once more where the gates' gradient needs it
///   lora_grad  4 M R (K + N)             flop;  s (rows_x K + rows_y N) + A and B + dA and dB
///   activation            0              flop;  3/2 s rows_y N
///   activation_backward   0              flop;  5/2 s rows_y N
/// With P = tokens * top_k entries, i = size of an index, g of a gate:
///   route                 0              flop;  i (3 P + E)
///   group                 0              flop;  s K (rows of x, not more than P, + P)
///   combine               0              flop;  s N (P + T) + g P
///   combine_backward      0              flop;  s N (2 P + T) + 2 g P
///   unpack                0              flop;  W as stored + s E K N
/// Quantised weights count as they are stored (packed_bytes) instead of s E' K N. A and B count E' experts, dA and dB
/// all of them. Not defined for `step`, whose floor is a sum of floors.
[[nodiscard]] Work work(Op op, const Problem& problem, const Load& load);

/// Codes and scales of one expert of a quantised weight, of both levels.
[[nodiscard]] double packed_bytes(const Problem& problem);

/// What the machine can do at best.
struct Ceilings {
    double flop_per_second = 0;
    double bytes_per_second = 0;
};

/// max(flop / flop_per_second, bytes / bytes_per_second); for `step` the sum of its three.
[[nodiscard]] double floor_seconds(Op op, const Problem& problem, const Load& load, const Ceilings& ceilings);

/// work(), or for `step` the sum of its three.
[[nodiscard]] Work total_work(Op op, const Problem& problem, const Load& load);

}  // namespace smlora::tool
