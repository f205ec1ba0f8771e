"""The derivatives of `linear`: gradients by the library's own kernels, and, for derivatives of those, the same gradients and
tangents written with differentiable operators."""

from typing import NamedTuple, Optional

import torch

from smlora._operator import Derivative, Operator, raw_calls, save_for_tangents, tangent_rule, wide
from smlora._projection import (
    GROUPED,
    SAVE_XA,
    SCATTERED,
    TOKEN,
    backward_bias,
    backward_input,
    backward_lora,
    backward_weight,
    forward,
    linear,
    transposed_operands,
    unit_columns,
    write_weight_gradient,
)
from smlora._rows import combine_op, group_op, row_products


class Projection(NamedTuple):
    """What `linear` takes besides x, in its order. A Derivative leaves out what no gradient needs."""

    W: Optional[torch.Tensor]
    A: Optional[torch.Tensor]
    B: Optional[torch.Tensor]
    bias: Optional[torch.Tensor]
    gates: Optional[torch.Tensor]
    scattered: torch.Tensor
    offsets: torch.Tensor
    top_k: int
    x_rows: int
    y_rows: int
    scaling: float
    weight_parts: Optional[list] = None
    weight_format: Optional[list] = None

    @property
    def routing(self):
        return self.scattered, self.offsets, self.top_k

    @property
    def orders(self):
        return self.x_rows, self.y_rows

class Wants(NamedTuple):
    """Which gradients of a projection are wanted; also the gradients themselves."""

    x: object = None
    W: object = None
    A: object = None
    B: object = None
    bias: object = None
    gates: object = None


def kept_for_backward(x, p, wants, *, x_is_kept=False):
    """(x, W, A, B, bias, gates) without what no wanted gradient needs."""
    product = wants.x or wants.gates
    adapted = product or wants.A or wants.B
    return (
        x if wants.gates or wants.A or wants.B or wants.W or x_is_kept else None,
        p.W if product or wants.W else None,
        p.A if adapted else None,
        p.B if adapted else None,
        p.bias if wants.gates else None,
        p.gates,
    )


# ---- by the library's kernels -----------------------------------------------------------------------------------------
#
# `run`: of raw_calls.


def gradients_of_input(run, dy, x, p, wants, *, before_gates=False):
    """(dx, yb, dgates); x is read for dgates alone. With `before_gates` dx lacks the gates' factor, and there are no dgates."""
    want_dgates = wants.gates and not before_gates
    return run(
        backward_input, dy, p.W, p.A, p.B, p.gates, p.scattered, p.offsets, x if want_dgates else None, p.bias, p.top_k,
        *p.orders, p.scaling, wants.A, want_dgates, p.weight_parts, p.weight_format, before_gates
    )


def gradients_of_parameters(run, dy, x, p, wants, xa, yb):
    """(dW, dA, dB, db), None for what is not wanted."""
    dW = dA = dB = db = None
    if wants.A or wants.B:
        dA, dB = run(
            backward_lora, x, dy, p.A, p.B, p.gates, p.scattered, p.offsets, xa, yb if wants.A else None, p.top_k,
            *p.orders, p.scaling, wants.A, wants.B
        )
    if wants.W:
        dW = run(backward_weight, x, dy, p.W, p.gates, *p.routing, *p.orders)
    if wants.bias:
        db = run(backward_bias, dy, p.gates, *p.routing, p.y_rows)
    return dW, dA if wants.A else None, dB if wants.B else None, db


def _kernel_gradients(run, dy, x, p, wants, xa):
    dx = yb = dgates = None
    dy = unit_columns(dy)
    if wants.x or wants.gates:
        dx, yb, dgates = gradients_of_input(run, dy, x, p, wants)
    parameters = gradients_of_parameters(run, dy, x, p, wants, xa, yb)
    return Wants(dx if wants.x else None, *parameters, dgates if wants.gates else None)


# ---- by differentiable operators --------------------------------------------------------------------------------------


def _as_weight(matrices, like):
    """[E, in, out] of the type of `like`, one of the last two dimensions contiguous."""
    matrices = matrices.to(like.dtype)
    if matrices.is_contiguous() or matrices.transpose(1, 2).is_contiguous():
        return matrices
    return matrices.contiguous()


def _product(rows, matrices, scattered, offsets, top_k, x_rows=GROUPED, y_rows=GROUPED, gates=None):
    """Of each row and its expert's matrix [in, out]."""
    return linear.call(
        unit_columns(rows), _as_weight(matrices, rows), None, None, None, gates, scattered, offsets, top_k, x_rows, y_rows,
        1.0
    )


def _outer(u, v, scattered, offsets, top_k, dtype):
    out = _fake_outer(u, v, scattered, offsets, top_k, dtype)
    return write_weight_gradient(out, u, v, None, scattered, offsets, top_k, GROUPED, GROUPED)


def _fake_outer(u, v, scattered, offsets, top_k, dtype):
    return u.new_empty((offsets.shape[0], u.shape[1], v.shape[1]), dtype=dtype)


outer = Operator(
    "outer(Tensor u, Tensor v, Tensor sorted_scattered_idxs, Tensor expert_offsets, int top_k, ScalarType dtype) -> Tensor",
    _outer,
    _fake_outer,
)
"""[E, P, Q]: the sums of u_i^T v_i over the rows of each expert, of u [M, P] and v [M, Q], both grouped."""


class _Outer(Derivative):
    @staticmethod
    def forward(ctx, keys, u, v, scattered, offsets, top_k, dtype):
        ctx.save_for_backward(u, v, scattered, offsets)
        save_for_tangents(ctx, u, v, scattered, offsets)
        ctx.numbers = top_k, dtype
        return outer.below_autograd(keys, u, v, scattered, offsets, top_k, dtype)

    @staticmethod
    def backward(ctx, dout):
        u, v, scattered, offsets = ctx.saved_tensors
        routing = scattered, offsets, ctx.numbers[0]
        _, want_du, want_dv, *_ = ctx.needs_input_grad
        with torch.autocast(dout.device.type, enabled=False):
            du = _product(v, dout.transpose(1, 2), *routing) if want_du else None
            dv = _product(u, dout, *routing) if want_dv else None
        return None, du, dv, None, None, None, None

    @tangent_rule
    def jvp(ctx, saved, tu, tv, *_):
        u, v, *routing = saved
        terms = [] if tu is None else [outer.call(unit_columns(tu), v, *routing, *ctx.numbers)]
        return sum(terms if tv is None else [*terms, outer.call(u, unit_columns(tv), *routing, *ctx.numbers)])


outer.differentiable(_Outer, over=outer)


def _ones(rows, p):
    return rows.new_ones((p.scattered.shape[0], 1))


def differentiable_gradients(dy, x, p, wants):
    """The wanted gradients by operators that can be differentiated again. `linear` is linear in x, W, bias and gates, and in
    A and B each, so that these are products of the same kind."""
    # The caller of backward may be under autocast, which would cast these products, but not those of the kernels.
    with torch.autocast(dy.device.type, enabled=False):
        return _differentiable_gradients(dy, x, p, wants)


def _differentiable_gradients(dy, x, p, wants):
    dx = dW = dA = dB = db = dgates = None
    dy = unit_columns(dy)
    routing = p.routing
    rows = dy if p.y_rows == GROUPED else group_op.call(dy, p.gates, *routing, p.y_rows)
    if wants.x:
        A, B = (None, None) if p.A is None else (p.B.transpose(1, 2), p.A.transpose(1, 2))
        W, *quantized = transposed_operands(p.W, p.weight_parts, p.weight_format)
        dx = linear.call(rows, W, A, B, None, None, *routing, GROUPED, p.x_rows, p.scaling, *quantized)
    if wants.W or wants.A or wants.B:
        sorted_x = x if p.x_rows == GROUPED else group_op.call(x, None, *routing, p.x_rows)
        if wants.W:
            dW = outer.call(sorted_x, rows, *routing, p.W.dtype)
        if wants.A:
            dA = outer.call(_product(rows, p.B, *routing), sorted_x, *routing, p.A.dtype) * p.scaling
        if wants.B:
            xa = _product(sorted_x, p.A.transpose(1, 2), *routing)
            dB = outer.call(xa, rows, *routing, p.B.dtype).transpose(1, 2) * p.scaling
    if wants.bias:
        db = outer.call(_ones(rows, p), rows, *routing, dy.dtype).squeeze(1)
    if wants.gates:
        y = linear.call(x, *p._replace(gates=None, y_rows=SCATTERED))
        dgates = row_products(y, dy, p.top_k).to(p.gates.dtype)
    return Wants(dx, dW, dA, dB, db, dgates)


def tangent(x, p, tangents):
    """Of y, for the tangents of a projection's arguments, None for those that have none; None if none has any."""
    tx, tW, tA, tB, tb, tgates = tangents
    routing, orders = p.routing, dict(y_rows=p.y_rows, gates=p.gates)
    terms = []
    if tx is not None:
        terms.append(linear.call(unit_columns(tx), *p._replace(bias=None)))
    if tW is not None and p.weight_format is None:  # torch gives codes of floating point a tangent of zeros
        terms.append(_product(x, tW, *routing, p.x_rows, **orders))
    if tA is not None:
        rank_rows = _product(x, tA.transpose(1, 2), *routing, p.x_rows)
        terms.append(_product(rank_rows, p.B.transpose(1, 2), *routing, **orders) * p.scaling)
    if tB is not None:
        rank_rows = _product(x, p.A.transpose(1, 2), *routing, p.x_rows)
        terms.append(_product(rank_rows, tB.transpose(1, 2), *routing, **orders) * p.scaling)
    if tb is not None:
        terms.append(_product(_ones(x, p), tb.unsqueeze(1), *routing, **orders))
    if tgates is not None:
        y = linear.call(x, *p._replace(gates=None, y_rows=SCATTERED))
        terms.append(combine_op.call(y, tgates.to(p.gates.dtype).contiguous(), p.top_k))
    return sum(terms) if terms else None


# ---- the derivative ---------------------------------------------------------------------------------------------------


def gradients(run, dy, x, p, wants, xa):
    """The wanted gradients, as Wants; `run`: of raw_calls."""
    if run is None:
        return differentiable_gradients(dy, x, p, wants)
    return _kernel_gradients(run, dy, x, p, wants, xa)


class _Linear(Derivative):
    """The tensors of a quantised weight beside its codes, which nothing differentiates, are kept as they are."""

    @staticmethod
    def forward(ctx, keys, x, *projection):
        p, wants = Projection(*projection), Wants(*ctx.needs_input_grad[1:7])
        arguments = (*projection, wants.B)
        if len(projection) > SAVE_XA - 1:
            arguments = (*projection[: SAVE_XA - 1], wants.B, *projection[SAVE_XA - 1 :])
        y, xa = forward.below_autograd(keys, x, *arguments)
        ctx.save_for_backward(*kept_for_backward(x, p, wants), p.scattered, p.offsets, xa if wants.B else None)
        save_for_tangents(ctx, x, *projection[:7])
        ctx.keys, ctx.numbers = keys, projection[7:]
        return y

    @staticmethod
    def backward(ctx, dy):
        x, *tensors, xa = ctx.saved_tensors
        p, wants = Projection(*tensors, *ctx.numbers), Wants(*ctx.needs_input_grad[1:7])
        return None, *gradients(raw_calls(ctx, dy), dy, x, p, wants, xa), *[None] * 8

    @tangent_rule
    def jvp(ctx, saved, *tangents):
        x, *tensors = saved
        return tangent(x, Projection(*tensors, *ctx.numbers), tangents[:6])


linear.differentiable(_Linear, over=forward, flag_at=SAVE_XA)
