"""The adapter's gradients of rank rows that are at hand; see smlora.scattermoe. Not differentiable."""

import torch

from smlora._arguments import check_number
from smlora._projection import GROUPED, backward_lora, padded_rank, unit_columns
from smlora.scattermoe._calls import adapters_as, not_differentiable, routing_arrays


def _rank_rows(rows, R, scaling, dtype):
    """[M, R] as the library makes them: with the scaling in them, and a row stride of its own."""
    padded = rows.new_zeros((rows.shape[0], padded_rank(R)), dtype=dtype)
    torch.mul(rows.to(dtype), scaling, out=padded[:, :R])
    return padded


@not_differentiable
def grouped_lora_weight_grads(grouped_grad_out, grouped_x, yb, xa, lora_A, lora_B, combined_offsets, e_total, scaling):
    """(dA [E * R, K], dB [N, E * R]) = scaling (YB_e^T X_e, DY_e^T XA_e), all rows in expert order."""
    scaling = check_number("scaling", scaling)
    R = lora_A.size(0) // e_total
    A, B = adapters_as(grouped_x.dtype, lora_A, lora_B, e_total)
    order = torch.arange(grouped_x.size(0), device=grouped_x.device, dtype=combined_offsets.dtype)
    scattered, offsets = routing_arrays(order, combined_offsets, e_total)
    xa, yb = (_rank_rows(rows, R, scaling, grouped_x.dtype) for rows in (xa, yb))
    dA, dB = backward_lora.call(unit_columns(grouped_x), unit_columns(grouped_grad_out), A, B, None, scattered, offsets, xa,
                                yb, 1, GROUPED, GROUPED, scaling, True, True)
    return (
        dA.reshape(lora_A.shape).to(lora_A.dtype),
        dB.permute(1, 0, 2).reshape(lora_B.shape).to(lora_B.dtype),
    )
