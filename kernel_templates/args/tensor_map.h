// A tensor map of the driver, by value in a kernel's parameters.
#pragma once

namespace smlora {

/// The bytes of a CUtensorMap: what cuTensorMapEncodeTiled writes on the host and a bulk tensor copy reads.
struct alignas(64) TensorMap {
    unsigned long long words[16];
};

}  // namespace smlora
