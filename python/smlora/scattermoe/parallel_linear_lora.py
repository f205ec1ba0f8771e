"""The projection with adapters; see smlora.scattermoe."""

from smlora.scattermoe._calls import projection
from smlora.scattermoe.parallel_experts import parallel_linear


class ScatterMoELoRA:
    """`apply` as of an autograd.Function. Differentiable in x, lora_A, lora_B and gates; the weights and their biases are
    frozen."""

    @staticmethod
    def apply(x, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets, lora_A, lora_B, scaling,
              expert_biases=None, gates=None, grouped_in=False, grouped_out=False, use_fused_dX=False,
              use_fused_gather=False):
        bias = None if expert_biases is None else expert_biases.detach()
        return projection(x, expert_weights.detach(), k, sorted_scattered_idxs, expert_offsets, (lora_A, lora_B), scaling,
                          bias, gates, grouped_in, grouped_out)


def parallel_linear_lora(inputs, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
                         lora_A=None, lora_B=None, scaling=1.0, expert_biases=None, gates=None, grouped_in=False,
                         grouped_out=False, use_fused_dX=False, use_fused_gather=False):
    """y_i = x_i W_e + scaling (x_i A_e^T) B_e^T + b_e with frozen weights, or `parallel_linear` without adapters."""
    if lora_A is None or lora_B is None:
        return parallel_linear(inputs, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
                               expert_biases, gates, grouped_in, grouped_out)
    return ScatterMoELoRA.apply(inputs, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
                                lora_A, lora_B, scaling, expert_biases, gates, grouped_in, grouped_out)


def get_lora_params_from_wrapper(module):
    """(lora_A, lora_B, scaling) of the first active adapter of a PEFT wrapper; three times None if there is none."""
    active = getattr(module, "active_adapters", ["default"])
    adapters = getattr(module, "lora_A", None)
    if not active or adapters is None or not hasattr(module, "lora_B") or active[0] not in adapters:
        return None, None, None
    name = active[0]
    return adapters[name].weight, module.lora_B[name].weight, module.scaling[name]
