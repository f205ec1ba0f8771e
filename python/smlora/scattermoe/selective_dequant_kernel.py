"""Values of some experts of an nf4 weight; see smlora.scattermoe."""

import torch

from smlora.quantized import QuantizedWeight
from smlora.quantized._tables import table_of
from smlora.scattermoe._experts import decoded_experts


def selective_dequant_nf4_triton(packed_data, absmax, active_experts, expert_shape, blocksize, dtype=torch.bfloat16,
                                 codebook=None):
    """[num_active, *expert_shape] of packed_data, two values in a byte, with absmax [number of blocks] and codebook [16],
    that of bitsandbytes unless given. Despite its name no Triton, on every device."""
    E = 2 * packed_data.numel() // torch.Size(expert_shape).numel()
    codebook = table_of("nf4", packed_data.device) if codebook is None else codebook.to(packed_data.device, torch.float32)
    weight = QuantizedWeight(
        "nf4", E, *expert_shape, packed_data.reshape(-1), absmax.reshape(-1).float(), block=blocksize, table=codebook
    ).check()
    return decoded_experts(weight, active_experts, dtype)
