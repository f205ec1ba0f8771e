"""Routing and the projection without adapters; see smlora.scattermoe."""

import torch
from torch.autograd import forward_ad

from smlora._routing import route
from smlora.scattermoe import kernels
from smlora.scattermoe._calls import projection, unwrapped, weight_as

_INT_MAX = 2**31 - 1


def _needs_int64_indices(*tensors):
    """Whether one of the tensors has 2^31 - 1 elements or more. Kept for code that imports it; it has no effect here."""
    return any(isinstance(tensor, torch.Tensor) and tensor.numel() >= _INT_MAX for tensor in tensors)


def compileable_bincount(x, minlength):
    """[minlength] int64 counts of the values of x, all below minlength, in one graph for torch.compile."""
    return torch.zeros(minlength, dtype=torch.long, device=x.device).scatter_add_(
        0, x.flatten().long(), torch.ones_like(x, dtype=torch.long).flatten()
    )


def flatten_sort_count(expert_idxs, num_experts):
    """(sorted_expert_idxs [M], sorted_scattered_idxs [M], expert_offsets [num_experts]), int64, of expert_idxs
    [T, top_k]."""
    choices = expert_idxs if expert_idxs.dim() == 2 else expert_idxs.reshape(-1, 1)
    return tuple(route(choices, num_experts, index_dtype=torch.int64)[:3])


def parallel_linear(inputs, expert_weights, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets,
                    expert_biases=None, gates=None, grouped_in=False, grouped_out=False):
    """y_i = x_i W_e + b_e for inputs [M / k, K], or [M, K] with grouped_in, and expert_weights [E, K, N]. Returns [M, N], in
    expert order with grouped_out; with gates [T, top_k] the rows of a token are summed, [T, N]. Differentiable in all of
    them, but for quantised weights, which are frozen."""
    expert_weights = unwrapped(expert_weights)
    if gates is None and not torch.is_grad_enabled() and forward_ad._current_level < 0:
        weights = weight_as(inputs.dtype, expert_weights)
        bias = None if expert_biases is None else expert_biases.to(inputs.dtype)
        large = _needs_int64_indices(inputs) or sorted_expert_idxs.shape[0] * weights.shape[-1] >= _INT_MAX
        return kernels.ops.scatter2scatter(inputs, weights, sorted_expert_idxs, sorted_scattered_idxs, k, bias, grouped_in,
                                           grouped_out, int64_indices=large)
    return projection(inputs, expert_weights, k, sorted_scattered_idxs, expert_offsets, None, 1.0, expert_biases, gates,
                      grouped_in, grouped_out)


class ParallelLinear:
    """`parallel_linear` under the name of an autograd.Function."""

    apply = staticmethod(parallel_linear)


class ParallelExperts(torch.nn.Module):
    """`parallel_linear` with its parameters: weight [num_experts, output_size, input_size] and bias."""

    def __init__(self, num_experts, input_size, output_size, bias=False):
        super().__init__()
        self.num_experts, self.input_size, self.output_size = num_experts, input_size, output_size
        self.weight = torch.nn.Parameter(torch.empty(num_experts, output_size, input_size))
        self.bias = torch.nn.Parameter(torch.empty(num_experts, output_size)) if bias else None
        self.reset_parameters()

    def reset_parameters(self):
        torch.nn.init.normal_(self.weight, std=0.02)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def extra_repr(self):
        return f"num_experts={self.num_experts}, input_size={self.input_size}, output_size={self.output_size}"

    def forward(self, inputs, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets, gates=None,
                grouped_in=False, grouped_out=False):
        return parallel_linear(inputs, self.weight.permute(0, 2, 1), k, sorted_expert_idxs, sorted_scattered_idxs,
                               expert_offsets, self.bias, gates, grouped_in, grouped_out)
