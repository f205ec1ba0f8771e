// How long what a copy reads stays in L2, of which there is none here.
#pragma once

namespace smlora::emulator {

constexpr unsigned long long policy_once = 0x12f0;
constexpr unsigned long long policy_normal = 0x16f0;

/// What a copy does with any other number is not defined.
SMLORA_EMULATED void check_policy(unsigned long long policy, Where where) {
    if (policy != policy_once && policy != policy_normal)
        runtime->trap("a policy that createpolicy did not make", where);
}

}  // namespace smlora::emulator

namespace smlora::ptx {

__device__ SMLORA_EMULATED unsigned long long l2_policy(bool read_once) {
    return read_once ? emulator::policy_once : emulator::policy_normal;
}

}  // namespace smlora::ptx
