"""The products without adapters; see smlora.scattermoe. Nothing here is differentiable."""

import torch

from smlora._projection import GROUPED, backward_bias, backward_weight, forward, unit_columns, weight_operands
from smlora._rows import group_rows
from smlora.scattermoe._calls import not_differentiable, offsets_of, routing_arrays, row_order, written_to


# Constants of Triton's kernels, kept for code that imports them. They have no effect here.
BLOCK_M = 128
ALLOW_TF32 = True


@not_differentiable
def scatter2scatter_compileable(output, W, X, k, sorted_expert_idxs, sorted_scattered_idxs, b, x_grouped, y_grouped,
                                int64_indices=False, residual=None):
    """scatter2scatter into `output`, or into a new tensor if it is None. Returns what was written to."""
    scattered, offsets = routing_arrays(sorted_scattered_idxs, offsets_of(sorted_expert_idxs, W.size(0)), W.size(0))
    values, *quantized = weight_operands("W", W)
    y, _ = forward.call(unit_columns(X), values, None, None, b, None, scattered, offsets, k, row_order(x_grouped, k),
                        row_order(y_grouped, 1), 1.0, False, *quantized)
    if residual is not None:
        y += residual
    return written_to(output, y)


def scatter2scatter(X, W, sorted_expert_idxs, sorted_scattered_idxs, k, b=None, x_grouped=False, y_grouped=False,
                    out=None, int64_indices=False, residual=None):
    """Y_i = X_i W_e + b_e (+ residual). X [M / k, K], or [M, K] with x_grouped; returns [M, N], in expert order with
    y_grouped."""
    return scatter2scatter_compileable(out, W, X, k, sorted_expert_idxs, sorted_scattered_idxs, b, x_grouped, y_grouped,
                                       int64_indices, residual)


@not_differentiable
def group(A, sorted_expert_idxs, coeff=None, fan_out=1, out=None):
    """Y_i = coeff[f] * A[f // fan_out] with f = sorted_expert_idxs[i], which despite its name is sorted_scattered_idxs.
    A [M / fan_out, K]; coeff [M]; returns [M, K]."""
    M = sorted_expert_idxs.size(0)
    everything = torch.full((1,), M, dtype=sorted_expert_idxs.dtype, device=A.device)
    gates = None if coeff is None else coeff.reshape(-1, fan_out).contiguous()
    if gates is not None and gates.dtype not in (A.dtype, torch.float32):
        gates = gates.float()
    rows = group_rows.call(unit_columns(A), gates, sorted_expert_idxs, everything, fan_out, row_order(False, fan_out))
    return written_to(out, rows)


@not_differentiable
def group_bwd_W(DY, X, expert_offsets, E, has_bias=False):
    """(dW [E, K, N], db [E, N] or None) of DY [M, N] and X [M, K], both in expert order."""
    order = torch.arange(X.size(0), device=X.device, dtype=expert_offsets.dtype)
    scattered, offsets = routing_arrays(order, expert_offsets, E)
    DY, X = unit_columns(DY), unit_columns(X)
    like = X.new_empty((E, X.size(1), DY.size(1)))
    dW = backward_weight.call(X, DY, like, None, scattered, offsets, 1, GROUPED, GROUPED)
    return dW, backward_bias.call(DY, None, scattered, offsets, 1, GROUPED) if has_bias else None
