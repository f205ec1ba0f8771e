// The init functions of the C structs. The defaults are those of the C++ structs, read off them.
#include "capi/convert.hpp"

#define SMLORA_INIT(name)                                                          \
    void smlora_##name##_init(smlora_##name* target, size_t struct_size) {         \
        using smlora::capi::defaults;                                              \
        smlora::capi::init_struct(target, struct_size, defaults<smlora_##name>()); \
    }

extern "C" {

SMLORA_FOR_EACH_INPUT(SMLORA_INIT)

}  // extern "C"
