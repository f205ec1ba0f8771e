"""Several adapters ("tenants") trained at once over one frozen layer; see smlora.scattermoe. A row has an expert and a
tenant; its adapter is that of group expert * tenants + tenant."""

import torch

from smlora._arguments import check_number
from smlora.scattermoe._calls import projection
from smlora.scattermoe.parallel_experts import compileable_bincount


def build_multilora_routing(flat_expert_idxs, flat_tenant_idxs, num_experts, num_tenants):
    """(sorted_expert_idxs, sorted_combined_idxs, sorted_scattered_idxs, expert_offsets, combined_offsets) of the expert and
    the tenant of each entry: sorted by group, and so by expert."""
    combined = flat_expert_idxs * num_tenants + flat_tenant_idxs
    sorted_combined, scattered = torch.sort(combined, stable=True)
    sorted_experts = torch.div(sorted_combined, num_tenants, rounding_mode="floor")
    combined_offsets = compileable_bincount(sorted_combined, num_experts * num_tenants).cumsum(0)
    return sorted_experts, sorted_combined, scattered, combined_offsets[num_tenants - 1 :: num_tenants].contiguous(), \
        combined_offsets


def scatter2scatter_multilora(x, expert_weights, k, sorted_expert_idxs, sorted_combined_idxs, sorted_scattered_idxs,
                              expert_offsets, combined_offsets, lora_A, lora_B, scaling=1.0):
    """y_i = x_i W_e + scaling (x_i A_g^T) B_g^T for expert e and group g of each entry. x [M / k, K], expert_weights
    [E, K, N], frozen, lora_A [G * R, K], lora_B [N, G * R]; returns [M, N]. Differentiable in x, lora_A and lora_B."""
    scaling = check_number("scaling", scaling)
    groups = combined_offsets.shape[0]
    R = lora_A.shape[0] // groups
    A = lora_A.view(groups, R, -1).transpose(1, 2)
    B = lora_B.t().reshape(groups, R, -1).contiguous()
    y = projection(x, expert_weights.detach(), k, sorted_scattered_idxs, expert_offsets, None, 1.0, None, None, False, False)
    xa = projection(x, A, k, sorted_scattered_idxs, combined_offsets, None, 1.0, None, None, False, True)
    adapted = projection(xa, B, 1, sorted_scattered_idxs, combined_offsets, None, 1.0, None, None, True, False)
    return torch.add(y, adapted, alpha=scaling)


class ScatterMoEMultiLoRA:
    """`scatter2scatter_multilora` under the name of an autograd.Function."""

    apply = staticmethod(scatter2scatter_multilora)
