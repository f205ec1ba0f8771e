"""Rows between the orders: `group` gathers them by expert, `combine` sums each token's."""

from typing import Optional

import torch

from smlora import _native
from smlora._arguments import ARGUMENT_ERRORS, check_tensor, check_whole, in_callers_words
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
from smlora._projection import ROW_ORDERS, TOKEN, unit_columns
from smlora._routing import Routing, check_routing

# ---- combine ----------------------------------------------------------------------------------------------------------


def _combined(y, gates, top_k):
    return (y.new_empty((y.shape[0] // top_k, y.shape[1])),)


def _combine_gradients(dout, y, gates, top_k, want_dy, want_dgates):
    dy = dout.new_empty((dout.shape[0] * top_k if want_dy else 0, dout.shape[1]))
    return dy, torch.empty_like(gates) if want_dgates else dout.new_empty((0,))


combine_backward = library_operator("combine_backward", _combine_gradients).without_derivative()
combine_rows = library_operator("combine_rows", _combined).without_derivative()
combine_op = Operator(schema_of("combine", "combine_rows"), combine_rows.kernel, combine_rows.fake)


def _spread(dout, gates, top_k):
    """[T * top_k, width]: the rows of dout [T, width], one for each choice, times its gate."""
    rows = dout.unsqueeze(1).expand(-1, top_k, -1)
    if gates is not None:
        rows = (wide(rows) * wide(gates).unsqueeze(2)).to(dout.dtype)
    return rows.reshape(dout.shape[0] * top_k, dout.shape[1])


def row_products(y, out, top_k):
    """[T, top_k]: the products of the rows of y [T * top_k, width], scattered, with their token's of `out` [T, width]."""
    return (wide(y).view(out.shape[0], top_k, out.shape[1]) * wide(out).unsqueeze(1)).sum(2)


class _Combine(Derivative):
    @staticmethod
    def forward(ctx, keys, y, gates, top_k):
        ctx.save_for_backward(y if ctx.needs_input_grad[2] else None, gates)
        save_for_tangents(ctx, y, gates)
        ctx.keys, ctx.top_k = keys, top_k
        return combine_rows.below_autograd(keys, y, gates, top_k)

    @staticmethod
    def backward(ctx, dout):
        y, gates = ctx.saved_tensors
        _, want_dy, want_dgates, _ = ctx.needs_input_grad
        run = raw_calls(ctx, dout)
        if run is None:
            dy = _spread(dout, gates, ctx.top_k) if want_dy else None
            return None, dy, row_products(y, dout, ctx.top_k).to(gates.dtype) if want_dgates else None, None
        dy, dgates = run(combine_backward, unit_columns(dout), y, gates, ctx.top_k, want_dy, want_dgates)
        return None, dy if want_dy else None, dgates if want_dgates else None, None

    @tangent_rule
    def jvp(ctx, saved, ty, tgates, _):
        y, gates = saved
        terms = [] if ty is None else [combine_op.call(unit_columns(ty), gates, ctx.top_k)]
        return sum(terms if tgates is None else [*terms, combine_op.call(y, tgates.contiguous(), ctx.top_k)])


combine_op.differentiable(_Combine, over=combine_rows)


def combine(y: torch.Tensor, gates: Optional[torch.Tensor] = None, *, top_k: Optional[int] = None) -> torch.Tensor:
    """out_t = sum_j gates[t, j] * y[t * top_k + j], in fp32 (fp64 for fp64) and in the order of j.

    y [T * top_k, width]: a row for each choice, beside its token's others ("scattered"); bfloat16, float16 or float32, float64
    on the CPU. gates [T, top_k], of y's type or fp32; without them `top_k` says how many rows a token has. Returns [T, width],
    of y's type. Differentiable any number of times and in forward mode. Raises ValueError that names the argument."""
    check_tensor("y", y, ("T * top_k", "width"))
    if gates is not None:
        check_tensor("gates", gates, ("T", "top_k"))
    if top_k is None:
        if gates is None:
            raise ValueError("top_k: expected a number where there are no gates, got None")
        top_k = gates.shape[1]
    top_k = check_whole("top_k", top_k, 1, _native.max_top_k)
    try:
        return combine_op.call(unit_columns(y), None if gates is None else gates.contiguous(), top_k)
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error) from None


# ---- group ------------------------------------------------------------------------------------------------------------


def _grouped(x, gates, sorted_scattered_idxs, expert_offsets, top_k, x_rows):
    return (x.new_empty((sorted_scattered_idxs.shape[0], x.shape[1])),)


group_rows = library_operator("group_rows", _grouped).without_derivative()
group_op = Operator(schema_of("group", "group_rows"), group_rows.kernel, group_rows.fake)


class _Group(Derivative):
    @staticmethod
    def forward(ctx, keys, x, gates, scattered, offsets, top_k, x_rows):
        ctx.save_for_backward(x if ctx.needs_input_grad[2] else None, gates, scattered, offsets)
        save_for_tangents(ctx, x, gates, scattered, offsets)
        ctx.keys, ctx.numbers = keys, (top_k, x_rows)
        return group_rows.below_autograd(keys, x, gates, scattered, offsets, top_k, x_rows)

    @staticmethod
    def backward(ctx, dout):
        x, gates, scattered, offsets = ctx.saved_tensors
        top_k, x_rows = ctx.numbers
        _, want_dx, want_dgates, *_ = ctx.needs_input_grad
        # Entries that were left out have rows of zeros whatever x and gates are: what stands there, be it NaN, goes nowhere.
        left_out = torch.arange(dout.shape[0], device=dout.device) >= offsets[-1]
        rows = torch.empty_like(dout, memory_format=torch.contiguous_format)
        rows.index_copy_(0, scattered.long(), dout.masked_fill(left_out.unsqueeze(1), 0))
        if gates is not None:
            left_out = torch.empty_like(left_out).index_copy_(0, scattered.long(), left_out).view(gates.shape)
            gates = gates.masked_fill(left_out, 0)
        dx = dgates = None
        if x_rows == TOKEN:
            run = raw_calls(ctx, dout)
            if want_dx:
                dx = combine_op.call(rows, gates, top_k) if run is None else run(combine_rows, rows, gates, top_k)
            if want_dgates and run is None:
                dgates = row_products(rows, x, top_k).to(gates.dtype)
            elif want_dgates:
                _, dgates = run(combine_backward, x, rows, gates, top_k, False, True)
        else:
            if want_dx:
                dx = rows if gates is None else (wide(rows) * wide(gates).reshape(-1, 1)).to(rows.dtype)
            if want_dgates:
                dgates = (wide(rows) * wide(x)).sum(1).to(gates.dtype).view_as(gates)
        if want_dgates:
            dgates = dgates.masked_fill(left_out, 0)
        return None, dx, dgates, None, None, None, None

    @tangent_rule
    def jvp(ctx, saved, tx, tgates, *_):
        x, gates, *routing = saved
        terms = [] if tx is None else [group_op.call(unit_columns(tx), gates, *routing, *ctx.numbers)]
        if tgates is not None:
            terms.append(group_op.call(x, tgates.contiguous(), *routing, *ctx.numbers))
        return sum(terms)


group_op.differentiable(_Group, over=group_rows)


def group(x: torch.Tensor, routing: Routing, gates: Optional[torch.Tensor] = None, *, rows: str = "token") -> torch.Tensor:
    """out_i = gates[f] * x_row(f): gathers rows into expert order, for code of your own between two projections.

    x [T, width] with rows="token" or [M, width] with rows="scattered". gates [T, top_k], optional, of x's type or fp32.
    Returns [M, width], grouped, of x's type; rows of entries that are left out are zero. Types, derivatives and errors: as of
    `combine`."""
    if rows not in ("token", "scattered"):
        raise ValueError(f'rows: expected "token" or "scattered", got {rows!r}')
    check_tensor("x", x, ("rows", "width"))
    check_routing(routing)
    try:
        return group_op.call(
            unit_columns(x), None if gates is None else gates.contiguous(), routing.sorted_scattered_idxs,
            routing.expert_offsets, routing.top_k, ROW_ORDERS[rows]
        )
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error) from None
