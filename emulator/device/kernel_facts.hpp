// What the shared object of a kernel says of it, under the name <kernel>_facts.
#pragma once

namespace smlora::emulator {

struct KernelFacts {
    void (*entry)(void* const* parameters);
    const unsigned* parameter_bytes;
    unsigned parameters;
    unsigned most_threads;
    unsigned cluster[3];  ///< of __cluster_dims__; 0: a launch says
};

}  // namespace smlora::emulator
