// Integer arithmetic that the host and the kernels share.
#pragma once

namespace smlora {

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

constexpr int round_up(int value, int multiple) { return ceil_div(value, multiple) * multiple; }

constexpr int least_of(int a, int b) { return a < b ? a : b; }

constexpr int greatest_of(int a, int b) { return a < b ? b : a; }

}  // namespace smlora
