"""The projection of a Mixture-of-Experts layer with its adapter: raw operators, and `linear`, whose derivative is in
_derivative_of_linear.py."""

import torch

from smlora import _native
from smlora._library import place
from smlora._operator import Operator

TOKEN, SCATTERED, GROUPED = 0, 1, 2
ROW_ORDERS = {"token": TOKEN, "scattered": SCATTERED, "grouped": GROUPED}

_LINEAR = (
    "Tensor x, Tensor W, Tensor? A, Tensor? B, Tensor? bias, Tensor? gates, Tensor sorted_scattered_idxs, "
    "Tensor expert_offsets, int top_k, int x_rows, int y_rows, float scaling"
)


def padded_rank(R):
    """The row stride of xa and yb: R rounded up to 8."""
    return (R + 7) // 8 * 8


def rows_in(order, M, top_k):
    return M // top_k if order == TOKEN else M


def _rank_rows(like, wanted, A, M):
    return like.new_empty((M if wanted else 0, padded_rank(A.shape[1]) if A is not None else 0))


# ---- forward ----------------------------------------------------------------------------------------------------------


def _forward_outputs(x, W, A, M, top_k, y_rows, save_xa):
    return x.new_empty((rows_in(y_rows, M, top_k), W.shape[2])), _rank_rows(x, save_xa, A, M)


def _forward(x, W, A, B, bias, gates, scattered, offsets, top_k, x_rows, y_rows, scaling, save_xa):
    engine, stream, allocate = place(x)
    y, xa = _forward_outputs(x, W, A, scattered.shape[0], top_k, y_rows, save_xa)
    _native.forward(engine, stream, top_k, x_rows, y_rows, scaling, allocate, x, W, A, B, bias, gates, scattered,
                    offsets, y, xa if save_xa else None)
    return y, xa


def _fake_forward(x, W, A, B, bias, gates, scattered, offsets, top_k, x_rows, y_rows, scaling, save_xa):
    return _forward_outputs(x, W, A, scattered.shape[0], top_k, y_rows, save_xa)


forward = Operator(f"forward({_LINEAR}, bool save_xa) -> (Tensor, Tensor)", _forward, _fake_forward)

# ---- backward_input ---------------------------------------------------------------------------------------------------


def _backward_input_outputs(dy, W, A, gates, M, top_k, x_rows, save_yb, want_dgates):
    dx = dy.new_empty((rows_in(x_rows, M, top_k), W.shape[1]))
    dgates = torch.empty_like(gates) if want_dgates else dy.new_empty((0,))
    return dx, _rank_rows(dy, save_yb, A, M), dgates


def _backward_input(dy, W, A, B, gates, scattered, offsets, x, bias, top_k, x_rows, y_rows, scaling, save_yb,
                    want_dgates):
    engine, stream, allocate = place(dy)
    dx, yb, dgates = _backward_input_outputs(dy, W, A, gates, scattered.shape[0], top_k, x_rows, save_yb, want_dgates)
    _native.backward_input(engine, stream, top_k, x_rows, y_rows, scaling, allocate, dy, W, A, B, gates, scattered,
                           offsets, x, bias, dx, yb if save_yb else None, dgates if want_dgates else None)
    return dx, yb, dgates


def _fake_backward_input(dy, W, A, B, gates, scattered, offsets, x, bias, top_k, x_rows, y_rows, scaling, save_yb,
                         want_dgates):
    return _backward_input_outputs(dy, W, A, gates, scattered.shape[0], top_k, x_rows, save_yb, want_dgates)


backward_input = Operator(
    "backward_input(Tensor dy, Tensor W, Tensor? A, Tensor? B, Tensor? gates, Tensor sorted_scattered_idxs, "
    "Tensor expert_offsets, Tensor? x, Tensor? bias, int top_k, int x_rows, int y_rows, float scaling, bool save_yb, "
    "bool want_dgates) -> (Tensor, Tensor, Tensor)",
    _backward_input,
    _fake_backward_input,
)

# ---- backward_lora ----------------------------------------------------------------------------------------------------


def _backward_lora_outputs(x, A, B, want_dA, want_dB):
    return (
        torch.empty_like(A) if want_dA else x.new_empty((0,)),
        torch.empty_like(B) if want_dB else x.new_empty((0,)),
    )


def _backward_lora(x, dy, A, B, gates, scattered, offsets, xa, yb, top_k, x_rows, y_rows, scaling, want_dA, want_dB):
    engine, stream, allocate = place(x)
    dA, dB = _backward_lora_outputs(x, A, B, want_dA, want_dB)
    _native.backward_lora(engine, stream, top_k, x_rows, y_rows, scaling, allocate, x, dy, A, B, gates, scattered,
                          offsets, xa, yb, dA if want_dA else None, dB if want_dB else None)
    return dA, dB


def _fake_backward_lora(x, dy, A, B, gates, scattered, offsets, xa, yb, top_k, x_rows, y_rows, scaling, want_dA,
                        want_dB):
    return _backward_lora_outputs(x, A, B, want_dA, want_dB)


backward_lora = Operator(
    "backward_lora(Tensor x, Tensor dy, Tensor A, Tensor B, Tensor? gates, Tensor sorted_scattered_idxs, "
    "Tensor expert_offsets, Tensor? xa, Tensor? yb, int top_k, int x_rows, int y_rows, float scaling, bool want_dA, "
    "bool want_dB) -> (Tensor, Tensor)",
    _backward_lora,
    _fake_backward_lora,
)

# ---- gradients of what is usually frozen ------------------------------------------------------------------------------
#
# Both are the kernel of dB_e = sum_i g_f dy_i^T xa_i with other rows in the place of xa: rows of x for dW, ones for the
# bias. The largest rank is what the kernel takes at once.

_COLUMNS = 256


def _sum_outer_products(x, dy, rank_rows, out, gates, scattered, offsets, top_k, rows):
    """out_e [N, R] = sum over the rows of expert e of g_f dy_i^T rank_rows_i; x lends its place only."""
    engine, stream, allocate = place(dy)
    _native.backward_lora(engine, stream, top_k, rows, rows, 1.0, allocate, x, dy, None, None, gates, scattered, offsets,
                          rank_rows, None, None, out)


def write_weight_gradient(out, x, dy, gates, scattered, offsets, top_k, x_rows, y_rows):
    """out_e [K, N] = sum over the rows of expert e of g_f x_i^T dy_i. Returns out."""
    engine, stream, _ = place(x)
    M, K = scattered.shape[0], x.shape[1]
    rows = x
    if x_rows != GROUPED:
        rows = x.new_empty((M, K))
        _native.group(engine, stream, top_k, x_rows, x, None, scattered, offsets, rows)
    for first in range(0, K, _COLUMNS):
        columns = rows[:, first : first + _COLUMNS]
        width = columns.shape[1]
        slab = columns.new_zeros((M, padded_rank(width)))
        slab[:, :width] = columns
        part = out[:, first : first + width, :].transpose(1, 2)
        _sum_outer_products(dy, dy, slab, part, gates, scattered, offsets, top_k, y_rows)
    return out


def _backward_weight(x, dy, W, *rest):
    return write_weight_gradient(torch.empty_like(W), x, dy, *rest)


def _fake_backward_weight(x, dy, W, *rest):
    return torch.empty_like(W)


backward_weight = Operator(
    "backward_weight(Tensor x, Tensor dy, Tensor W, Tensor? gates, Tensor sorted_scattered_idxs, Tensor expert_offsets, "
    "int top_k, int x_rows, int y_rows) -> Tensor",
    _backward_weight,
    _fake_backward_weight,
)


def _backward_bias(dy, gates, scattered, offsets, top_k, y_rows):
    db = dy.new_empty((offsets.shape[0], dy.shape[1]))
    ones = dy.new_zeros((scattered.shape[0], padded_rank(1)))
    ones[:, 0] = 1
    _sum_outer_products(dy, dy, ones, db.unsqueeze(2), gates, scattered, offsets, top_k, y_rows)
    return db


def _fake_backward_bias(dy, gates, scattered, offsets, top_k, y_rows):
    return dy.new_empty((offsets.shape[0], dy.shape[1]))


backward_bias = Operator(
    "backward_bias(Tensor dy, Tensor? gates, Tensor sorted_scattered_idxs, Tensor expert_offsets, int top_k, int y_rows) "
    "-> Tensor",
    _backward_bias,
    _fake_backward_bias,
)

# ---- linear -----------------------------------------------------------------------------------------------------------


def _linear(*arguments):
    return _forward(*arguments, False)[0]


def _fake_linear(x, W, A, B, bias, gates, scattered, offsets, top_k, x_rows, y_rows, scaling):
    return x.new_empty((rows_in(y_rows, scattered.shape[0], top_k), W.shape[2]))


linear = Operator(f"linear({_LINEAR}) -> Tensor", _linear, _fake_linear)
linear.autocast(positions=(0, 1, 4), companions=(2, 3, 5))  # x, W, bias; A, B, gates


def unit_columns(rows):
    """Rows that do not overlap and whose columns are contiguous, as the library wants them. A gradient may be anything: that
    of y.sum() is one number expanded, that of y.sum(0) one row."""
    if rows.is_contiguous() or (rows.stride(1) == 1 and rows.stride(0) >= rows.shape[1]):
        return rows
    return rows.contiguous()
