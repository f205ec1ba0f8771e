"""The forward of a module of experts, as one operation."""

import math

import torch
from torch.utils._python_dispatch import _disable_current_modes

from smlora._activation import Activation, gated_activation
from smlora._library import Error
from smlora._linear import moe_lora_linear
from smlora._mlp import moe_lora_mlp
from smlora._prewarm import form_of, mlp_problems, prewarm
from smlora._routing import route
from smlora._rows import combine
from smlora.transformers._parallel import are_ones, part_of
from smlora.transformers._warnings import warn_once
from smlora.transformers._weights import PLAIN, bias_of, is_gated, is_held, parameters_of, quantized_weight, weight_of

BY_THE_MODEL = object()
"""An activation that is the module's own code, between two operations."""

# ---- what a module computes -------------------------------------------------------------------------------------------


def _candidates(module):
    """The activations that a module may have. Its numbers are tried as alpha and limit whatever it calls them."""
    numbers = {float(value) for value in vars(module).values() if type(value) in (int, float) and math.isfinite(value)}
    clamps = [(alpha, limit) for alpha in sorted(numbers) for limit in sorted(numbers) if limit > 0]
    for interleaved in (False, True):
        for kind in ("swiglu", "geglu", "geglu_tanh", "reglu"):
            yield Activation(kind, interleaved)
        for alpha, limit in clamps:
            yield Activation("swiglu_clamped", interleaved, alpha, limit)


@torch.no_grad()
def _activation_of(module):
    """The Activation that the module's _apply_gate is, found out by trying it on numbers; None if no Activation
    gives the same. The numbers are real ones on the CPU, whatever device or mode the caller is in."""
    with _disable_current_modes(), torch.device("cpu"), torch.autocast("cpu", enabled=False):
        return _activation_by_numbers(module)


def _activation_by_numbers(module):
    # Ordinary values, and values beyond every clamp.
    spread = torch.linspace(-3, 3, 61, dtype=torch.float64)
    points = torch.cat([spread, spread * 40])
    gates, values = torch.meshgrid(points, points, indexing="ij")
    halves = torch.stack([gates.reshape(-1, 61), values.reshape(-1, 61)], 1).flatten(1)
    try:
        expected = module._apply_gate(halves)
    except Exception:  # whatever a model's own code may raise
        return None
    for candidate in _candidates(module):
        got = gated_activation(halves, candidate)
        # alpha and limit are kept in fp32.
        if got.shape == expected.shape and torch.allclose(got, expected.double(), rtol=1e-6, atol=1e-9):
            return candidate
    return None


def reason_against(module):
    """Why smlora cannot compute this module's experts, whatever their activation is, or None."""
    name = type(module).__name__
    for parameter in parameters_of(module):
        try:
            weight = quantized_weight(module, parameter)
        except ValueError as error:
            return f"{name}.{parameter} is quantised as smlora cannot take it: {error}"
        if weight is not None:
            continue
        weight = getattr(module, parameter, None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 3:
            return f"{name} has no parameter {parameter} [experts, .., ..]"
        if weight.dtype not in PLAIN:
            return f"{name}.{parameter} is of {weight.dtype}, without the scales that smlora knows"
    return None


def has_norm(module):
    """Whether it normalises what an expert gives, before the gates."""
    return getattr(module, "has_post_expert_norm", False)


def between_projections(module):
    """The module's Activation, or BY_THE_MODEL."""
    fused = is_gated(module) and not has_norm(module)
    return (_activation_of(module) if fused else None) or BY_THE_MODEL


@torch.compiler.disable
def _find_out(module):
    activation, reason = None, reason_against(module)
    if reason is None:
        activation = between_projections(module)
    else:
        if any(is_held(module, name) for name in parameters_of(module)):
            raise NotImplementedError(f"{reason}; its experts are quantised, and the model's own code cannot read them")
        warn_once(f'{reason}; its experts run as with experts_implementation="grouped_mm"')
    module._smlora_activation = activation


def find_out_anew(module):
    """After another way to keep its weights."""
    vars(module).pop("_smlora_activation", None)


def activation_or_none(module):
    """The module's Activation; BY_THE_MODEL if that is none of smlora's; None, with one warning, if its weights are not
    served. The first call finds it out, which breaks the graph of a compiler."""
    if not hasattr(module, "_smlora_activation"):
        _find_out(module)
    return module._smlora_activation


# ---- the first step ---------------------------------------------------------------------------------------------------

_prewarmed = set()


def problems_of(module, weights, top_k, dtype, adapters, gate_dtype):
    """The two projections of a module of experts. weights: a WeightForm of each; dtype: of the rows; adapters: {parameter:
    (rank, type)} of those inside the operation."""
    inside = [adapters.get(name, (0, dtype)) for name in parameters_of(module)]
    return mlp_problems(
        *weights, top_k, dtype, ranks=[rank for rank, _ in inside], adapter_dtypes=[type_of for _, type_of in inside],
        gate_dtype=gate_dtype, biases=(module.has_bias, module.has_bias), summed=not has_norm(module),
    )


def compile_the_step(module, x, gates, top_k, adapters):
    """At the first training call on a GPU with about so many tokens: everything that a step needs, compiled at once instead
    of one kernel after the other, each when it is first wanted."""
    T = x.shape[0]
    module._smlora_prewarmed = T.bit_length()
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    gate_dtype = None if gates is None else gates.dtype if gates.dtype in (dtype, torch.float32) else dtype
    problems = problems_of(
        module, [form_of(weight_in_out(module, name)) for name in parameters_of(module)], top_k, dtype,
        {name: (adapter.lora_A.shape[1], adapter.lora_A.dtype) for name, adapter in adapters.items() if adapter is not None},
        gate_dtype,
    )
    activation = activation_or_none(module)
    activation = None if activation is BY_THE_MODEL else activation
    key = (*problems, activation, T.bit_length())
    if T == 0 or key in _prewarmed:
        return
    _prewarmed.add(key)
    try:
        prewarm(problems, [T], activation=activation)
    except (Error, ValueError, NotImplementedError):
        # A kernel that is wanted fails again where it is wanted, and is named there.
        pass


# ---- the experts ------------------------------------------------------------------------------------------------------


def _grouped_mm(module, hidden_states, top_k_index, top_k_weights):
    """What Transformers takes if nobody chooses."""
    from transformers.integrations import finegrained_fp8
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    functions = ALL_EXPERTS_FUNCTIONS
    if isinstance(module, getattr(finegrained_fp8, "FP8Experts", ())):
        functions = finegrained_fp8.ALL_FP8_EXPERTS_FUNCTIONS
    if not getattr(module, "_is_expert_parallel", False):
        # Only then it leaves entries of other ranks out.
        outside = (top_k_index < 0) | (top_k_index >= module.num_experts)
        top_k_index, top_k_weights = top_k_index.masked_fill(outside, 0), top_k_weights.masked_fill(outside, 0)
    return functions["grouped_mm"](module, hidden_states, top_k_index, top_k_weights)


def weight_in_out(module, parameter):
    """[E, in, out]"""
    weight = weight_of(module, parameter)
    return weight if module.is_transposed else weight.transpose(1, 2)


def _bias(module, parameter, dtype):
    """[E, out]; as plain Transformers keeps some in fp32."""
    return bias_of(module, parameter).to(dtype) if module.has_bias else None


def _adapter(adapter, dtype):
    """With both factors in `dtype` or fp32."""
    if adapter is None:
        return None
    A, B, scaling = adapter
    if not (A.dtype == B.dtype and A.dtype in (dtype, torch.float32)):
        A, B = A.float(), B.float()
    return adapter._replace(lora_A=A, lora_B=B, scaling=scaling)


def _by_the_model(module, x, weights, biases, lora, routing, gates):
    """The two projections, with the model's own code between them."""

    def projection(x, i, **rows):
        A, B, scaling = lora[i] or (None, None, 1.0)
        return moe_lora_linear(x, weights[i], routing, A, B, scaling=scaling, bias=biases[i], **rows)

    h = projection(x, 0, y_rows="grouped")
    a = (module._apply_gate(h) if is_gated(module) else module.act_fn(h)).to(h.dtype)
    if not has_norm(module):
        return projection(a, 1, gates=gates, x_rows="grouped", y_rows="token")
    y = projection(a, 1, x_rows="grouped", y_rows="scattered")
    return combine(module.post_expert_norm(y), gates, top_k=routing.top_k)


def experts_forward(module, hidden_states, top_k_index, top_k_weights):
    """What Transformers calls for experts_implementation="smlora". hidden_states [.., K], top_k_index and top_k_weights
    [T, top_k]; an index outside the module's experts belongs to another rank, whose part of the sum is left out."""
    activation = activation_or_none(module)
    if activation is None:
        return _grouped_mm(module, hidden_states, top_k_index, top_k_weights)
    x = hidden_states.reshape(-1, hidden_states.shape[-1])
    device_type = x.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x.dtype
    names = parameters_of(module)
    weights = {name: weight_in_out(module, name) for name in names}
    adapters = {
        name: _adapter(part_of(active[-1].adapter, weights[name], module, name, active[-1].layout), dtype)
        for name, active in getattr(module, "_smlora_adapters", {}).items() if active
    }
    gates = None if are_ones(top_k_weights) else top_k_weights
    if gates is not None and gates.dtype not in (x.dtype, torch.float32):
        gates = gates.float()
    if (
        x.is_cuda
        and not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and getattr(module, "_smlora_prewarmed", None) != x.shape[0].bit_length()
    ):
        compile_the_step(module, x, gates, top_k_index.shape[1], adapters)
    routing = route(top_k_index, module.num_experts)
    weights = list(weights.values())
    biases = [_bias(module, name, x.dtype) for name in names]
    lora = [adapters.get(name) for name in names]
    if activation is BY_THE_MODEL:
        out = _by_the_model(module, x, weights, biases, lora, routing, gates)
    else:
        out = moe_lora_mlp(x, *weights, routing, gates, activation=activation, gate_up_lora=lora[0], down_lora=lora[1],
                           gate_up_bias=biases[0], down_bias=biases[1])
    return out.reshape(hidden_states.shape).to(hidden_states.dtype)
