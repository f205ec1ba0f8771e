"""The products with adapters and their gradients; see smlora.scattermoe. Nothing here is differentiable."""

import torch

from smlora._arguments import check_number
from smlora._projection import GROUPED, backward_input, backward_lora, forward, unit_columns, weight_operands
from smlora.scattermoe._calls import adapters_as, not_differentiable, offsets_of, routing_arrays, row_order, written_to
from smlora.scattermoe.kernels.ops import scatter2scatter

# From K * N of this size on, and up to so many experts, scatter2scatter_lora makes the base product and the adapter's part
# one after the other. smlora's single product is never slower; the threshold is
# honoured for callers that set it.
_SPLIT_LORA_FWD_THRESHOLD = 2**63
_SPLIT_LORA_FWD_MAX_EXPERTS = 32


# Constants of Triton's kernels, kept for code that imports them. They have no effect here.
BLOCK_M = 128
ALLOW_TF32 = True
MIN_TRITON_DOT_SIZE = 16
_M_BUCKET_GRANULARITY = 1024
_M_BUCKET_COARSE = 131072
_M_BUCKET_COARSE_THRESHOLD = 16384


def _next_power_of_2(n):
    return 1 << (n - 1).bit_length()


def _block_r_for_rank(r):
    return _next_power_of_2(max(r, MIN_TRITON_DOT_SIZE))


def _bucket_m(m):
    granularity = _M_BUCKET_COARSE if m >= _M_BUCKET_COARSE_THRESHOLD else _M_BUCKET_GRANULARITY
    return -(-m // granularity) * granularity


@torch.no_grad()
def round_expert_counts(sorted_expert_idxs, sorted_scattered_idxs, expert_offsets, E, block_m=BLOCK_M):
    """Pads every expert that has rows to a multiple of block_m by repeating its last: (padded sorted_expert_idxs, padded
    sorted_scattered_idxs, padded offsets [E], offsets [E] as they were). Waits for the GPU, as sizes depend on the counts.
    smlora's kernels gain nothing by it."""
    counts = torch.diff(expert_offsets, prepend=expert_offsets.new_zeros(1))
    padded = (counts + block_m - 1) // block_m * block_m
    ends = padded.cumsum(0).to(expert_offsets.dtype)
    position = torch.arange(int(ends[-1]), device=ends.device, dtype=ends.dtype)
    expert = torch.searchsorted(ends, position, right=True)
    within = torch.minimum(position - (ends - padded)[expert], counts[expert] - 1)
    source = (expert_offsets - counts)[expert] + within
    return sorted_expert_idxs[source], sorted_scattered_idxs[source], ends, expert_offsets.clone()


def _unpadded(padded_offsets, offsets, M):
    """[M]: where the rows of each expert lie in what round_expert_counts made; anything for rows of no expert."""
    zero = offsets.new_zeros(1)
    shift = torch.cat([zero, padded_offsets[:-1]]) - torch.cat([zero, offsets[:-1]])
    position = torch.arange(M, device=offsets.device, dtype=offsets.dtype)
    expert = torch.searchsorted(offsets, position, right=True).clamp_(max=offsets.shape[0] - 1)
    return position + shift[expert]


def _split(X, W, sorted_expert_idxs, sorted_scattered_idxs, k, A, B, scaling, b, x_grouped, y_grouped):
    arrays = sorted_expert_idxs, sorted_scattered_idxs
    y = scatter2scatter(X, W, *arrays, k, b, x_grouped, y_grouped)
    xa = scatter2scatter(X, A.to(X.dtype).contiguous().transpose(1, 2), *arrays, k, None, x_grouped, True)
    return y.add_(scatter2scatter(xa, B.to(X.dtype).contiguous().transpose(1, 2), *arrays, 1, None, True, y_grouped),
                  alpha=scaling)


@not_differentiable
def scatter2scatter_lora(X, W, sorted_expert_idxs, sorted_scattered_idxs, k, lora_A, lora_B, scaling, b=None,
                         x_grouped=False, y_grouped=False, out=None, int64_indices=False):
    """Y_i = X_i W_e + scaling (X_i A_e^T) B_e^T + b_e. X [M / k, K], or [M, K] with x_grouped; returns [M, N], in expert
    order with y_grouped."""
    E, K, N = W.shape
    A, B = adapters_as(X.dtype, lora_A, lora_B, E)
    X = unit_columns(X)
    if K * N >= _SPLIT_LORA_FWD_THRESHOLD and E <= _SPLIT_LORA_FWD_MAX_EXPERTS:
        return written_to(out, _split(X, W, sorted_expert_idxs, sorted_scattered_idxs, k, A, B, scaling, b, x_grouped,
                                      y_grouped))
    scattered, offsets = routing_arrays(sorted_scattered_idxs, offsets_of(sorted_expert_idxs, E), E)
    values, *quantized = weight_operands("W", W)
    y, _ = forward.call(X, values, A, B, b, None, scattered, offsets, k, row_order(x_grouped, k), row_order(y_grouped, 1),
                        check_number("scaling", scaling), False, *quantized)
    return written_to(out, y)


@not_differentiable
def scatter2scatter_lora_dX(DY, W, sorted_expert_idxs, sorted_scattered_idxs, k, lora_A, lora_B, scaling,
                            dy_grouped=True, dx_grouped=False, out=None, int64_indices=False):
    """dX_i = DY_i W_e^T + scaling (DY_i B_e) A_e. DY [M / k, N], or [M, N] with dy_grouped; returns [M, K], in expert
    order with dx_grouped."""
    E = W.size(0)
    A, B = adapters_as(DY.dtype, lora_A, lora_B, E)
    scattered, offsets = routing_arrays(sorted_scattered_idxs, offsets_of(sorted_expert_idxs, E), E)
    values, *quantized = weight_operands("W", W)
    dx, _, _ = backward_input.call(unit_columns(DY), values, A, B, None, scattered, offsets, None, None, k,
                                   row_order(dx_grouped, 1), row_order(dy_grouped, k),
                                   check_number("scaling", scaling), False, False, *quantized)
    return written_to(out, dx)


def scatter2scatter_lora_mx(X, W_mx, sorted_expert_idxs, sorted_scattered_idxs, k, lora_A, lora_B, scaling, b=None,
                            x_grouped=False, y_grouped=False, out=None, int64_indices=False):
    """scatter2scatter_lora with MXWeights."""
    return scatter2scatter_lora(X, W_mx.quantized, sorted_expert_idxs, sorted_scattered_idxs, k, lora_A, lora_B, scaling, b,
                                x_grouped, y_grouped, out, int64_indices)


def scatter2scatter_lora_dX_mx(DY, W_mx, sorted_expert_idxs, sorted_scattered_idxs, k, lora_A, lora_B, scaling,
                               dy_grouped=True, dx_grouped=False, out=None, int64_indices=False):
    """scatter2scatter_lora_dX with MXWeights."""
    return scatter2scatter_lora_dX(DY, W_mx.quantized, sorted_expert_idxs, sorted_scattered_idxs, k, lora_A, lora_B, scaling,
                                   dy_grouped, dx_grouped, out, int64_indices)


def _gradients(DY, X, lora_A, lora_B, expert_offsets, scattered, E, k, scaling, x_order, y_order):
    A, B = adapters_as(X.dtype, lora_A, lora_B, E)
    scattered, offsets = routing_arrays(scattered, expert_offsets, E)
    dA, dB = backward_lora.call(unit_columns(X), unit_columns(DY), A, B, None, scattered, offsets, None, None, k,
                                x_order, y_order, check_number("scaling", scaling), True, True)
    return (
        dA.reshape(lora_A.shape).to(lora_A.dtype),
        dB.permute(1, 0, 2).reshape(lora_B.shape).to(lora_B.dtype),
    )


@not_differentiable
def group_bwd_lora(DY, X, lora_A, lora_B, expert_offsets, E, scaling, sorted_scattered_idxs=None, k=1,
                   int64_indices=False):
    """(dA [E * R, K], dB [N, E * R]) of DY [M, N] and X [M, K], both in expert order; exactly zero for experts without
    rows."""
    order = torch.arange(X.size(0), device=X.device, dtype=expert_offsets.dtype)
    return _gradients(DY, X, lora_A, lora_B, expert_offsets, order, E, 1, scaling, GROUPED, GROUPED)


@not_differentiable
def group_bwd_lora_fused(DY, X, lora_A, lora_B, expert_offsets, sorted_scattered_idxs, E, k, scaling,
                         real_expert_offsets=None, dy_grouped=False, int64_indices=False):
    """As group_bwd_lora, of X [M / k, K] and of DY [M, N] in the order of the entries, or of the experts with
    dy_grouped. With real_expert_offsets the other two arrays are those of round_expert_counts."""
    offsets = expert_offsets
    if real_expert_offsets is not None:
        offsets = real_expert_offsets
        rows = _unpadded(expert_offsets, offsets, X.size(0) * k).clamp_(max=sorted_scattered_idxs.size(0) - 1)
        if dy_grouped and DY.size(0) == sorted_scattered_idxs.size(0):
            DY = DY[rows]
        sorted_scattered_idxs = sorted_scattered_idxs[rows]
    return _gradients(DY, X, lora_A, lora_B, offsets, sorted_scattered_idxs, E, k, scaling, row_order(False, k),
                      row_order(dy_grouped, 1))
