"""From the drop-in's arguments to those of smlora's operators."""

import contextlib
import functools

import torch
from torch.autograd import forward_ad

from smlora._arguments import ARGUMENT_ERRORS, LINEAR_NAMES, check_number, in_callers_words
from smlora._linear import adapter_views
from smlora._projection import GROUPED, SCATTERED, TOKEN, linear, unit_columns, weight_operands
from smlora._rows import combine
from smlora.quantized import QuantizedWeight
from smlora.scattermoe.mx_weights import MXWeights


def not_differentiable(function):
    """For what makes no graph, as in axolotl. torch.no_grad leaves forward mode on, whose tangents would get lost."""

    @functools.wraps(function)
    @torch.no_grad()
    def without_graph(*arguments, **named):
        if forward_ad._current_level >= 0:
            for tensor in (*arguments, *named.values()):
                if isinstance(tensor, torch.Tensor) and (
                    torch._C._functorch.is_functorch_wrapped_tensor(tensor)
                    or forward_ad.unpack_dual(tensor).tangent is not None
                ):
                    raise NotImplementedError(
                        f"{function.__name__}: has no derivatives; smlora.moe_lora_linear and smlora.group have them"
                    )
        try:
            return function(*arguments, **named)
        except ARGUMENT_ERRORS as error:
            raise in_callers_words(error, dict(LINEAR_NAMES, W="W")) from None

    return without_graph


def row_order(grouped, fan_out):
    """Of rows of which each serves `fan_out` entries."""
    if grouped:
        return GROUPED
    return SCATTERED if fan_out == 1 else TOKEN


def offsets_of(sorted_expert_idxs, E):
    """[E] inclusive cumulative row counts; entries beyond the last expert are in none."""
    experts = torch.arange(E, device=sorted_expert_idxs.device, dtype=sorted_expert_idxs.dtype)
    return torch.searchsorted(sorted_expert_idxs, experts, right=True).to(sorted_expert_idxs.dtype)


def routing_arrays(sorted_scattered_idxs, expert_offsets, E):
    """As the library wants them: of one type, contiguous, one offset for each expert."""
    offsets = expert_offsets[:E].to(sorted_scattered_idxs.dtype)
    return sorted_scattered_idxs.contiguous(), offsets.contiguous()


def adapters_as(dtype, lora_A, lora_B, E):
    """(A, B) as views; of a type that goes with `dtype`."""
    if not lora_A.dtype == lora_B.dtype == dtype:
        allowed = torch.float32 if lora_A.dtype == lora_B.dtype == torch.float32 else dtype
        lora_A, lora_B = lora_A.to(allowed), lora_B.to(allowed)
    return adapter_views(lora_A, lora_B, E)


def unwrapped(weight):
    """Of MXWeights the QuantizedWeight."""
    return weight.quantized if isinstance(weight, MXWeights) else weight


def weight_as(dtype, weight):
    """A quantised one as it is: it is decoded to the type of the rows."""
    return weight if isinstance(weight, QuantizedWeight) else weight.to(dtype)


def _plain_precision(x):
    """Autocast does not concern this library's products: results are of the type of the inputs."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


def projection(x, weight, k, sorted_scattered_idxs, expert_offsets, adapter, scaling, bias, gates, grouped_in,
               grouped_out):
    """Differentiable. `adapter`: (lora_A, lora_B) or None."""
    E = weight.shape[0]
    W, *quantized = weight_operands("W", weight_as(x.dtype, weight))
    bias = None if bias is None else bias.to(x.dtype).contiguous()
    A, B = (None, None) if adapter is None else adapters_as(x.dtype, *adapter, E)
    scattered, offsets = routing_arrays(sorted_scattered_idxs, expert_offsets, E)
    top_k, y_order, inner_gates = k, row_order(grouped_out, 1), None
    if gates is not None:
        if gates.dtype not in (x.dtype, torch.float32):
            gates = gates.to(torch.float32)
        gates = gates.contiguous()
        # One operation, unless the rows of x are shared by another number of entries than the gates combine.
        if not grouped_out and k in (1, gates.shape[1]):
            top_k, y_order, inner_gates = gates.shape[1], TOKEN, gates
    # In axolotl the sum with gates is a product that autocast casts; autocast leaves everything else alone.
    cast = gates is not None and torch.is_autocast_enabled(x.device.type)
    with _plain_precision(x):
        try:
            y = linear.call(unit_columns(x), W, A, B, bias, inner_gates, scattered, offsets, top_k, row_order(grouped_in, k),
                            y_order, check_number("scaling", scaling), *quantized)
        except ARGUMENT_ERRORS as error:
            raise in_callers_words(error) from None
        y = y if gates is None or inner_gates is not None else combine(y, gates)
    return y.to(torch.get_autocast_dtype(x.device.type)) if cast else y


def written_to(out, result):
    """Many functions of the drop-in take the tensor to write to."""
    return result if out is None else out.copy_(result)
