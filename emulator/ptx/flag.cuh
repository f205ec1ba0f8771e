// Flags in global memory, by which blocks of one launch tell each other what they have written.
#pragma once

namespace smlora::ptx {

__device__ SMLORA_EMULATED void set_flag(unsigned* flag) { *flag = 1; }

__device__ SMLORA_EMULATED void wait_for_flag(const unsigned* flag, SMLORA_WHERE) {
    emulator::runtime->wait_for_flag(flag, where);
}

}  // namespace smlora::ptx
