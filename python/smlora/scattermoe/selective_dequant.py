"""The values and adapters of the experts that have rows; see smlora.scattermoe. smlora's projections need none of it: they
decode these experts only."""

import torch

from smlora._arguments import described
from smlora.quantized import QuantizedWeight, from_bnb, from_torchao
from smlora.scattermoe._experts import decoded_experts
from smlora.scattermoe.mx_weights import is_mxfp4_param, is_nvfp4_param

_TORCHAO = ("MXTensor", "NVFP4Tensor", "Float8Tensor")


def get_active_experts(sorted_expert_idxs, E):
    """[num_active]: the experts that have rows, ascending. Waits for the GPU, as the size depends on the rows."""
    experts = torch.unique(sorted_expert_idxs)
    return experts[(experts >= 0) & (experts < E)]


def _rank_among(active_experts, E):
    """int64 [E + 1]: where each expert is in active_experts; their number for those that are not."""
    rank = torch.full((E + 1,), active_experts.numel(), dtype=torch.int64, device=active_experts.device)
    rank[active_experts.long()] = torch.arange(active_experts.numel(), device=active_experts.device)
    return rank


def remap_expert_indices(sorted_expert_idxs, expert_offsets, active_experts, E):
    """(sorted_expert_idxs, expert_offsets) that count active_experts only, which ascend. Entries of no expert stay such."""
    known = (sorted_expert_idxs >= 0) & (sorted_expert_idxs < E)
    ranks = _rank_among(active_experts, E)[torch.where(known, sorted_expert_idxs, E).long()]
    return ranks, expert_offsets[active_experts]


def selective_lora_weights(lora_A, lora_B, active_experts, E):
    """(lora_A [num_active * R, K], lora_B [N, num_active * R]) of lora_A [E * R, K] and lora_B [N, E * R]. Differentiable."""
    A = lora_A.view(E, -1, lora_A.shape[1])[active_experts]
    B = lora_B.view(lora_B.shape[0], E, -1)[:, active_experts]
    return A.flatten(0, 1), B.flatten(1, 2)


def _of_bitsandbytes(param_list):
    """(QuantizedWeight, the type that its parametrisation decodes it to), or None."""
    step = param_list[0]
    state = getattr(step, "quant_state", None)
    if state is not None:
        return from_bnb(param_list.original, state), state.dtype
    scales = getattr(step, "row_stats", None)
    return None if scales is None else (from_bnb(param_list.original, scales), torch.bfloat16)


def _quantized(module, name):
    """(QuantizedWeight, type of its values), or None. A parametrised attribute is never read: that would decode it."""
    parametrizations = getattr(module, "parametrizations", {})
    if name in parametrizations:
        return _of_bitsandbytes(parametrizations[name])
    param = getattr(module, name)
    if isinstance(param, QuantizedWeight):
        return param, torch.bfloat16
    if getattr(param, "quant_state", None) is not None:
        return from_bnb(param), param.quant_state.dtype
    if type(getattr(param, "data", param)).__name__ in _TORCHAO:
        return from_torchao(param.data), torch.bfloat16
    return None


def selective_expert_weights(experts_module, param_name, active_experts):
    """Plain values [num_active, ..] of the module's parameter: torchao's MXTensor, NVFP4Tensor and Float8Tensor and a
    QuantizedWeight as bfloat16, bitsandbytes' 4 bits in the type of the quant_state, its 8 bits as bfloat16. Of a plain
    parameter, its elements."""
    found = _quantized(experts_module, param_name)
    if found is not None:
        return decoded_experts(found[0], active_experts, found[1])
    param = getattr(experts_module, param_name)
    if param.dim() != 3:
        raise ValueError(f"{param_name}: expected a parameter with the experts first, of 3 dimensions, got {described(param)}")
    return param[active_experts]


def _selective_dequant_bnb4(raw_param, quant_state, active_experts, expert_shape):
    """Values [num_active, *expert_shape] of what bitsandbytes quantised as a whole."""
    E = torch.Size(quant_state.shape).numel() // torch.Size(expert_shape).numel()
    weight = from_bnb(raw_param, quant_state, shape=[E, *expert_shape])
    return decoded_experts(weight, active_experts, quant_state.dtype)


def shared_dequant_across_shards(experts_module, param_name, sei_per_shard, E):
    """(the experts that have rows in any shard, their values, for each shard the indices of its own among these), with
    sei_per_shard the sorted_expert_idxs of each: what several shards share is decoded once."""
    if not sei_per_shard:
        raise ValueError("sei_per_shard: expected the indices of one shard or more, got none")
    active = [get_active_experts(experts, E) for experts in sei_per_shard]
    union = torch.unique(torch.cat(active))
    ranks = _rank_among(union, E)
    return union, selective_expert_weights(experts_module, param_name, union), [ranks[experts] for experts in active]


__all__ = [
    "get_active_experts",
    "is_mxfp4_param",
    "is_nvfp4_param",
    "remap_expert_indices",
    "selective_expert_weights",
    "selective_lora_weights",
    "shared_dequant_across_shards",
]
