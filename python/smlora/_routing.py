"""Routing: the entries of a router sorted by expert."""

from typing import NamedTuple

import torch

from smlora import _native
from smlora._arguments import check_tensor, check_whole, described
from smlora._operator import library_operator


class Routing(NamedTuple):
    """What `route` makes of `top_idx` [T, top_k]. Entry f = t * top_k + j is choice j of token t; M = T * top_k."""

    sorted_expert_idxs: torch.Tensor
    """[M]: the expert of each sorted row, ascending; E for entries that are left out."""
    sorted_scattered_idxs: torch.Tensor
    """[M]: the entry f of each sorted row; entries that are left out come last."""
    expert_offsets: torch.Tensor
    """[E]: inclusive cumulative row counts."""
    top_k: int


def check_routing(routing):
    if not isinstance(routing, Routing):
        raise ValueError(f"routing: expected a Routing, which smlora.route makes, got {described(routing)}")


def _outputs(top_idx, num_experts, index_dtype):
    entries = top_idx.numel()
    return (
        top_idx.new_empty((entries,), dtype=index_dtype),
        top_idx.new_empty((entries,), dtype=index_dtype),
        top_idx.new_empty((num_experts,), dtype=index_dtype),
    )


_OP = library_operator("route", _outputs)


def route(top_idx, num_experts, *, index_dtype=torch.int32):
    """Sorts a router's choices by expert, once for all projections of a layer.

    top_idx [T, top_k], int32 or int64: the expert of each choice; -1, or any value outside 0 .. num_experts - 1, leaves
    the entry out (an expert on another rank): it takes part in no sum and its rows of an output are zero.
    index_dtype: int32 or int64, of the result.

    Returns a `Routing`. The sort is stable and nothing waits for the GPU. Raises ValueError that names the argument."""
    check_tensor("top_idx", top_idx, ("T", "top_k"))
    num_experts = check_whole("num_experts", num_experts, 1, _native.max_experts)
    if index_dtype not in (torch.int32, torch.int64):
        raise ValueError(f"index_dtype: expected torch.int32 or torch.int64, got {index_dtype!r:.80}")
    return Routing(*_OP.call(top_idx.contiguous(), num_experts, index_dtype), top_idx.shape[1])
