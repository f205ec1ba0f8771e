// The init functions of the C structs. The defaults are those of the C++ structs, read off them.
#include "capi/convert.hpp"

#define SMLORA_INIT(name)                                                          \
    void smlora_##name##_init(smlora_##name* target, size_t struct_size) {         \
        using smlora::capi::defaults;                                              \
        smlora::capi::init_struct(target, struct_size, defaults<smlora_##name>()); \
    }

extern "C" {

SMLORA_INIT(problem)
SMLORA_INIT(engine_options)
SMLORA_INIT(prewarm_options)
SMLORA_INIT(tune_options)
SMLORA_INIT(route_args)
SMLORA_INIT(group_args)
SMLORA_INIT(combine_args)
SMLORA_INIT(combine_backward_args)
SMLORA_INIT(activation_args)
SMLORA_INIT(activation_backward_args)
SMLORA_INIT(dequantize_args)
SMLORA_INIT(forward_args)
SMLORA_INIT(backward_input_args)
SMLORA_INIT(backward_lora_args)

}  // extern "C"
