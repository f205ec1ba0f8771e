// A source text without what no compiler looks at.
#pragma once

#include <string>
#include <string_view>

namespace smlora::jit {

/// The text of C++ without comments, and with no more white space than keeps its tokens and preprocessor lines apart.
/// Texts that differ in comments and layout alone have the same bare text; texts of different tokens never have. Where
/// white space might mean something (between two operators, before a point, in a preprocessor line) it stays, as one
/// blank: such a difference counts though it may be none.
[[nodiscard]] std::string bare_source(std::string_view text);

}  // namespace smlora::jit
