// What ptxas reports of a kernel in the compile log (option -v).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::jit {

struct ResourceUse {
    std::int64_t registers = 0;  ///< a thread's
    std::int64_t spill_store_bytes = 0;
    std::int64_t spill_load_bytes = 0;
    std::int64_t stack_bytes = 0;   ///< a thread's, with spills and local arrays
    std::int64_t shared_bytes = 0;  ///< static, a block's
    std::int64_t barriers = 0;

    [[nodiscard]] std::int64_t spill_bytes() const { return spill_store_bytes + spill_load_bytes; }
};

/// Reads the report of the one kernel of a log. Spills and stack are summed over the kernel and the functions that were
/// not inlined into it.
[[nodiscard]] ResourceUse resource_use(std::string_view log);

/// ptxas's performance notes: numbers C7510 to C7520, "wgmma instructions are serialized", which make a kernel several
/// times slower without any error. One item a note, as ptxas words it.
[[nodiscard]] std::vector<std::string> serialization_notes(std::string_view log);

}  // namespace smlora::jit
