// The ranges of a problem. The C interface has them as SMLORA_MAX_EXPERTS and its like, from which Python takes them.
#pragma once

#include <cstdint>

namespace smlora {

inline constexpr std::int64_t max_experts = 1024;
inline constexpr std::int64_t max_rank = 256;
inline constexpr std::int64_t max_top_k = 64;

}  // namespace smlora
