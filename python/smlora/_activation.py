"""Gated activations: what stands between the two projections of an expert."""

from typing import NamedTuple

import torch

from smlora import _native
from smlora._arguments import check_number, check_tensor
from smlora._library import place
from smlora._operator import Derivative, Operator
from smlora._projection import unit_columns

_KINDS = {"swiglu": 0, "geglu": 1, "geglu_tanh": 2, "reglu": 3, "swiglu_clamped": 4}


class Activation(NamedTuple):
    """a(g, u) of a gate g and the value u beside it.

    kind: "swiglu", silu(g) u; "geglu", gelu(g) u by erf; "geglu_tanh", with gelu approximated by tanh; "reglu",
    max(g, 0) u; "swiglu_clamped", g' sigmoid(alpha g') (u' + 1) with g' = min(g, limit) and u' clamped to +-limit.
    interleaved: gates and values lie in turns, a gate first; else all gates come before all values."""

    kind: str = "swiglu"
    interleaved: bool = False
    alpha: float = 1.702
    limit: float = 7.0

    def numbers(self):
        """As the operators take it."""
        if not isinstance(self.kind, str) or self.kind not in _KINDS:
            raise ValueError(f"activation: expected one of {', '.join(_KINDS)}, got {self.kind!r}")
        return _KINDS[self.kind], int(self.interleaved), check_number("alpha", self.alpha), check_number("limit", self.limit)


GPT_OSS = Activation("swiglu_clamped", interleaved=True)
"""What gpt-oss has."""


def as_activation(activation):
    return activation if isinstance(activation, Activation) else Activation(activation)


def _activated(h):
    return h.new_empty((h.shape[0], h.shape[1] // 2))


def _activation(h, kind, layout, alpha, limit):
    engine, stream, _ = place(h)
    a = _activated(h)
    _native.activation(engine, stream, kind, layout, alpha, limit, h, a)
    return a


def _fake_activation(h, kind, layout, alpha, limit):
    return _activated(h)


def _gradients(h, want_a):
    a = _activated(h) if want_a else h.new_empty((0,))
    return h.new_empty(h.shape), a


def _activation_backward(h, da, kind, layout, alpha, limit, want_a):
    engine, stream, _ = place(h)
    dh, a = _gradients(h, want_a)
    _native.activation_backward(engine, stream, kind, layout, alpha, limit, h, da, dh, a if want_a else None)
    return dh, a


def _fake_activation_backward(h, da, kind, layout, alpha, limit, want_a):
    return _gradients(h, want_a)


_NUMBERS = "int kind, int layout, float alpha, float limit"
activation_rows = Operator(f"activation_rows(Tensor h, {_NUMBERS}) -> Tensor", _activation, _fake_activation)
activation_backward = Operator(
    f"activation_backward(Tensor h, Tensor da, {_NUMBERS}, bool want_a) -> (Tensor, Tensor)",
    _activation_backward,
    _fake_activation_backward,
)
_activation_op = Operator(f"activation(Tensor h, {_NUMBERS}) -> Tensor", _activation, _fake_activation)


class _Activation(Derivative):
    @staticmethod
    def forward(ctx, keyset, h, *numbers):
        ctx.save_for_backward(h)
        ctx.numbers = numbers
        return activation_rows.below_autograd(keyset, h, *numbers)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, da):
        (h,) = ctx.saved_tensors
        dh, _ = activation_backward.call(h, unit_columns(da), *ctx.numbers, False)
        return None, dh, None, None, None, None


_activation_op.differentiable(_Activation, over=activation_rows)


def gated_activation(h, activation="swiglu"):
    """[rows, width] of h [rows, 2 * width], in one read and one write, forward and backward; only h is kept.

    activation: a name, or an `Activation` with its parameters."""
    check_tensor("h", h, ("rows", "2 * width"))
    if h.shape[1] % 2:
        raise ValueError(f"h: expected [rows, 2 * width], got {list(h.shape)}")
    return _activation_op.call(unit_columns(h), *as_activation(activation).numbers())
