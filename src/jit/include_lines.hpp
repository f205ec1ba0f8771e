// Finding the `#include "..."` lines of a source text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace smlora::jit {

struct IncludeLine {
    std::string name;        ///< what stands between the quotes
    std::size_t offset = 0;  ///< of the name in the text
    int line = 0;            ///< from 1
};

/// In the order of the text. Comments are skipped; conditions are not evaluated.
[[nodiscard]] std::vector<IncludeLine> quoted_includes(std::string_view text);

}  // namespace smlora::jit
