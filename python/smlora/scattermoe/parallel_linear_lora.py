"""The projection with adapters; see smlora.scattermoe."""

import torch

from smlora._projection import GROUPED, forward, unit_columns
from smlora.scattermoe._calls import adapters_as, not_differentiable, projection, routing_arrays, unwrapped, weight_as
from smlora.scattermoe._recipe import made_anew
from smlora.scattermoe.parallel_experts import parallel_linear


def _frozen(dtype, weight):
    return weight_as(dtype, unwrapped(weight).detach())


class ScatterMoELoRA:
    """`apply` as of an autograd.Function. Differentiable in x, lora_A, lora_B and gates; the weights and their biases are
    frozen. expert_weights.recipe, if a caller has set it, is a function that makes them again: then the backward pass calls it,
    and they are not kept."""

    @staticmethod
    def apply(x, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets, lora_A, lora_B, scaling,
              expert_biases=None, gates=None, grouped_in=False, grouped_out=False, use_fused_dX=False,
              use_fused_gather=False):
        bias = None if expert_biases is None else expert_biases.detach()
        recipe, dtype = getattr(expert_weights, "recipe", None), x.dtype
        weights = _frozen(dtype, expert_weights)
        with made_anew(weights, recipe and (lambda: _frozen(dtype, recipe()))):
            return projection(x, weights, k, sorted_scattered_idxs, expert_offsets, (lora_A, lora_B), scaling, bias, gates,
                              grouped_in, grouped_out)


def parallel_linear_lora(inputs, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
                         lora_A=None, lora_B=None, scaling=1.0, expert_biases=None, gates=None, grouped_in=False,
                         grouped_out=False, use_fused_dX=False, use_fused_gather=False):
    """y_i = x_i W_e + scaling (x_i A_e^T) B_e^T + b_e with frozen weights, or `parallel_linear` without adapters."""
    if lora_A is None or lora_B is None:
        return parallel_linear(inputs, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
                               expert_biases, gates, grouped_in, grouped_out)
    return ScatterMoELoRA.apply(inputs, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
                                lora_A, lora_B, scaling, expert_biases, gates, grouped_in, grouped_out)


@not_differentiable
def _compute_lora_input_grad(grouped_grad_out, lora_A, lora_B, expert_offsets, E, scaling, sorted_expert_idxs=None,
                             sorted_scattered_idxs=None, int64_indices=False, yb=None):
    """scaling (DY_e B_e) A_e [M, K] of DY [M, N], both in expert order; yb [M, R], if it is known, is DY_e B_e."""
    dtype = grouped_grad_out.dtype
    A, B = (adapter.to(dtype).contiguous() for adapter in adapters_as(dtype, lora_A, lora_B, E))
    order = torch.arange(grouped_grad_out.size(0), device=grouped_grad_out.device, dtype=expert_offsets.dtype)
    scattered, offsets = routing_arrays(order, expert_offsets, E)

    def product(rows, weights):
        return forward.call(unit_columns(rows), weights, None, None, None, None, scattered, offsets, 1, GROUPED, GROUPED,
                            1.0, False)[0]

    return product(product(grouped_grad_out, B) if yb is None else yb, A).mul_(scaling)


def get_lora_params_from_wrapper(module):
    """(lora_A, lora_B, scaling) of the first active adapter of a PEFT wrapper; three times None if there is none."""
    active = getattr(module, "active_adapters", ["default"])
    adapters = getattr(module, "lora_A", None)
    if not active or adapters is None or not hasattr(module, "lora_B") or active[0] not in adapters:
        return None, None, None
    name = active[0]
    return adapters[name].weight, module.lora_B[name].weight, module.scaling[name]
