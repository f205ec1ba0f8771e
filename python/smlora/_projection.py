"""The projection of a Mixture-of-Experts layer with its adapter: raw operators, and `linear`, whose derivative is in
_derivative_of_linear.py."""

import torch

from smlora import _native
from smlora._arguments import check_tensor
from smlora._library import place
from smlora._operator import Operator, library_operator, schema_of
from smlora.quantized._weight import QuantizedWeight, exchanged, shape_of_view

ROW_ORDERS = {name: value for value, name in enumerate(_native.row_orders)}
TOKEN, SCATTERED, GROUPED = (ROW_ORDERS[name] for name in ("token", "scattered", "grouped"))

padded_rank = _native.padded_rank
"""The row stride of xa and yb for a rank."""


def quantized_operands(name, weight):
    """(codes, weight_parts, weight_format) of a QuantizedWeight. The last two, which operators lack for a plain W, cost a call
    nothing where they are left out."""
    if torch.is_grad_enabled():
        for field, tensor in weight.tensors().items():
            if tensor.requires_grad:
                raise ValueError(
                    f"{name}.{field}: expected a tensor that needs no gradient, as a quantised weight is frozen, got one with "
                    "requires_grad=True; call its requires_grad_(False)"
                )
    return weight.operands()


def weight_operands(name, weight):
    """(W, *quantized) of a weight [E, K, N], a tensor or a QuantizedWeight."""
    if isinstance(weight, QuantizedWeight):
        return quantized_operands(name, weight)
    check_tensor(name, weight, ("E", "K", "N"))
    return (weight,)


def transposed_operands(W, weight_parts, weight_format):
    """Of the weight [E, N, K]."""
    return (W, weight_parts, exchanged(weight_format)) if weight_format else (W.transpose(1, 2),)


def extents(W, weight_format):
    """[E, K, N]"""
    return shape_of_view(weight_format) if weight_format else W.shape


def rows_in(order, M, top_k):
    return M // top_k if order == TOKEN else M


def _rank_rows(like, wanted, A, M):
    return like.new_empty((M if wanted else 0, padded_rank(A.shape[1]) if A is not None else 0))


def _forward_outputs(x, W, A, B, bias, gates, sorted_scattered_idxs, expert_offsets, top_k, x_rows, y_rows, scaling,
                     save_xa, weight_parts=None, weight_format=None):
    M = sorted_scattered_idxs.shape[0]
    N = (W.shape if weight_format is None else shape_of_view(weight_format))[2]
    return x.new_empty((rows_in(y_rows, M, top_k), N)), _rank_rows(x, save_xa, A, M)


def _backward_input_outputs(dy, W, A, B, gates, sorted_scattered_idxs, expert_offsets, x, bias, top_k, x_rows, y_rows,
                            scaling, save_yb, want_dgates, weight_parts=None, weight_format=None, before_gates=False):
    M = sorted_scattered_idxs.shape[0]
    dx = dy.new_empty((rows_in(x_rows, M, top_k), (W.shape if weight_format is None else shape_of_view(weight_format))[1]))
    dgates = torch.empty_like(gates) if want_dgates else dy.new_empty((0,))
    return dx, _rank_rows(dy, save_yb, A, M), dgates


def _backward_lora_outputs(x, dy, A, B, gates, sorted_scattered_idxs, expert_offsets, xa, yb, top_k, x_rows, y_rows,
                           scaling, want_dA, want_dB):
    dA = torch.empty_like(A) if want_dA else x.new_empty((0,))
    return dA, torch.empty_like(B) if want_dB else x.new_empty((0,))


forward = library_operator("forward", _forward_outputs).without_derivative()
backward_input = library_operator("backward_input", _backward_input_outputs).without_derivative()
backward_lora = library_operator("backward_lora", _backward_lora_outputs).without_derivative()

# ---- gradients of what is usually frozen ------------------------------------------------------------------------------
#
# Both are the kernel of dB_e = sum_i g_f dy_i^T xa_i with other rows in the place of xa: rows of x for dW, ones for the
# bias. The largest rank is what the kernel takes at once.


def _sum_outer_products(x, dy, rank_rows, out, gates, scattered, offsets, top_k, rows):
    """out_e [N, R] = sum over the rows of expert e of g_f dy_i^T rank_rows_i; x lends its place only."""
    _native.backward_lora(*place(dy), x, dy, None, None, gates, scattered, offsets, rank_rows, None, top_k, rows, rows, 1.0,
                          False, True, None, out)


def write_weight_gradient(out, x, dy, gates, scattered, offsets, top_k, x_rows, y_rows):
    """out_e [K, N] = sum over the rows of expert e of g_f x_i^T dy_i. Returns out."""
    M, K = scattered.shape[0], x.shape[1]
    rows = x
    if x_rows != GROUPED:
        rows = x.new_empty((M, K))
        _native.group_rows(*place(x), x, None, scattered, offsets, top_k, x_rows, rows)
    for first in range(0, K, _native.max_rank):
        columns = rows[:, first : first + _native.max_rank]
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
).without_derivative()


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
).without_derivative()

# ---- linear -----------------------------------------------------------------------------------------------------------


SAVE_XA = 12
"""Where `forward` has save_xa, which `linear` lacks."""


def _linear(*arguments):
    return forward.kernel(*arguments[:SAVE_XA], False, *arguments[SAVE_XA:])[0]


def _fake_linear(*arguments):
    return forward.fake(*arguments[:SAVE_XA], False, *arguments[SAVE_XA:])[0]


linear = Operator(schema_of("linear", "forward", without=("save_xa",), outputs=1), _linear, _fake_linear)
linear.autocast(positions=(0, 1, 4), companions=(2, 3, 5))  # x, W, bias; A, B, gates


def unit_columns(rows):
    """Rows that do not overlap and whose columns are contiguous, as the library wants them. A gradient may be anything: that
    of y.sum() is one number expanded, that of y.sum(0) one row."""
    if rows.is_contiguous() or (rows.stride(1) == 1 and rows.stride(0) >= rows.shape[1]):
        return rows
    return rows.contiguous()
