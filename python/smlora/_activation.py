"""Gated activations: what stands between the two projections of an expert."""

import ctypes
import math
from typing import NamedTuple

import torch

from smlora import _native
from smlora._arguments import check_flag, check_number, check_tensor
from smlora._operator import (
    Derivative,
    Operator,
    library_operator,
    raw_calls,
    save_for_tangents,
    schema_of,
    tangent_rule,
    wide,
)
from smlora._projection import unit_columns

_KINDS = {name: value for value, name in enumerate(_native.activations)}


class Activation(NamedTuple):
    """a(g, u) of a gate g and the value u beside it.

    kind: "swiglu", silu(g) u; "geglu", gelu(g) u by erf; "geglu_tanh", with gelu approximated by tanh; "reglu",
    max(g, 0) u; "swiglu_clamped", g' sigmoid(alpha g') (u' + 1) with g' = min(g, limit) and u' clamped to +-limit.
    interleaved: columns alternate between gates and values, a gate first; else all gates come before all values."""

    kind: str = "swiglu"
    interleaved: bool = False
    alpha: float = 1.702
    limit: float = 7.0

    def numbers(self) -> tuple[int, int, float, float]:
        """As the operators take it."""
        if not isinstance(self.kind, str) or self.kind not in _KINDS:
            raise ValueError(f"activation: expected one of {', '.join(_KINDS)}, got {self.kind!r}")
        interleaved = check_flag("interleaved", self.interleaved)
        return _KINDS[self.kind], interleaved, check_number("alpha", self.alpha), check_number("limit", self.limit)


GPT_OSS = Activation("swiglu_clamped", interleaved=True)
"""What gpt-oss has."""


def as_activation(activation):
    return activation if isinstance(activation, Activation) else Activation(activation)


def _activated(h, kind, layout, alpha, limit):
    return (h.new_empty((h.shape[0], h.shape[1] // 2)),)


def _gradients(h, da, kind, layout, alpha, limit, want_a, gates=None, sorted_scattered_idxs=None):
    a = h.new_empty((h.shape[0], h.shape[1] // 2) if want_a else (0,))
    return h.new_empty(h.shape), a, h.new_empty((0,)) if gates is None else torch.empty_like(gates)


activation_rows = library_operator("activation_rows", _activated).without_derivative()
activation_backward = library_operator("activation_backward", _gradients).without_derivative()
activation_op = Operator(schema_of("activation", "activation_rows"), activation_rows.kernel, activation_rows.fake)


def _gate_function(g, kind, alpha):
    """(f(g), f'(g)) of the function of a gate g, by torch's operators."""
    if kind == _KINDS["swiglu"] or kind == _KINDS["swiglu_clamped"]:
        alpha = 1.0 if kind == _KINDS["swiglu"] else alpha
        s = torch.sigmoid(alpha * g)
        return g * s, s * (1 + alpha * g * (1 - s))
    if kind == _KINDS["geglu"]:
        below = 0.5 * (1 + torch.erf(g / math.sqrt(2)))
        return g * below, below + g * torch.exp(-0.5 * g * g) / math.sqrt(2 * math.pi)
    if kind == _KINDS["geglu_tanh"]:
        factor, cubic = math.sqrt(2 / math.pi), 0.044715
        t = torch.tanh(factor * (g + cubic * g**3))
        return 0.5 * g * (1 + t), 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * factor * (1 + 3 * cubic * g * g)
    return torch.relu(g), (g > 0).to(g.dtype)


def _halves(h, layout):
    """Gates and values [rows, width] of h."""
    return (h[:, ::2], h[:, 1::2]) if layout else h.chunk(2, 1)


def _slopes(h, kind, layout, alpha, limit):
    """The derivatives of a in its gate and in its value, [rows, width] each, by torch's operators."""
    alpha, limit = (ctypes.c_float(number).value for number in (alpha, limit))  # as the library takes them
    g, u = _halves(wide(h), layout)
    if kind != _KINDS["swiglu_clamped"]:
        f, slope = _gate_function(g, kind, alpha)
        return slope * u, f
    f, slope = _gate_function(g.clamp(max=limit), kind, alpha)
    return slope * (u.clamp(-limit, limit) + 1) * (g <= limit), f * (u.abs() <= limit)


def differentiable_activation_gradient(h, da, *numbers):
    """dh by operators that can be differentiated again."""
    gate, value = (slope * wide(da) for slope in _slopes(h, *numbers))
    interleaved = numbers[1]
    dh = torch.stack((gate, value), 2).flatten(1) if interleaved else torch.cat((gate, value), 1)
    return dh.to(h.dtype)


def activation_tangent(h, th, *numbers):
    """That of a, for the tangent of h."""
    gate, value = _slopes(h, *numbers)
    t_gate, t_value = _halves(wide(th), numbers[1])
    return (gate * t_gate + value * t_value).to(h.dtype)


class _Activation(Derivative):
    @staticmethod
    def forward(ctx, keys, h, *numbers):
        ctx.save_for_backward(h)
        save_for_tangents(ctx, h)
        ctx.keys, ctx.numbers = keys, numbers
        return activation_rows.below_autograd(keys, h, *numbers)

    @staticmethod
    def backward(ctx, da):
        (h,) = ctx.saved_tensors
        run = raw_calls(ctx, da)
        if run is None:
            dh = differentiable_activation_gradient(h, da, *ctx.numbers)
        else:
            dh, _, _ = run(activation_backward, h, unit_columns(da), *ctx.numbers, False)
        return None, dh, None, None, None, None

    @tangent_rule
    def jvp(ctx, saved, th, *_):
        return activation_tangent(*saved, th, *ctx.numbers)


activation_op.differentiable(_Activation, over=activation_rows)


def gated_activation(h: torch.Tensor, activation: str | Activation = "swiglu") -> torch.Tensor:
    """[rows, width] of h [rows, 2 * width], in one read and one write, forward and backward; only h is kept.

    h: bfloat16, float16 or float32; float64 on the CPU. activation: a name, or an `Activation` with its parameters.
    Differentiable any number of times and in forward mode. Raises ValueError that names the argument."""
    check_tensor("h", h, ("rows", "2 * width"))
    if h.shape[1] % 2:
        raise ValueError(f"h: expected [rows, 2 * width], got {list(h.shape)}")
    return activation_op.call(unit_columns(h), *as_activation(activation).numbers())
