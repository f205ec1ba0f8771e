// Text for error messages.
#pragma once

#include <smlora/dtype.hpp>

#include <string>

namespace smlora {

/// Its name, or "the value 17" for what is no enumerator: the C interface passes integers through.
[[nodiscard]] std::string describe(DType dtype);

}  // namespace smlora
