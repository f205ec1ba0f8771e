"""Routing: the entries of a router sorted by expert, by smlora or by its caller."""

from typing import NamedTuple, Optional, Sequence

import torch

from smlora import _native
from smlora._arguments import INT32_MAX, INT64_MAX, check_tensor, check_whole, described
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


def _check_index_dtype(index_dtype):
    if index_dtype not in (torch.int32, torch.int64):
        raise ValueError(f"index_dtype: expected torch.int32 or torch.int64, got {index_dtype!r:.80}")


def route(top_idx: torch.Tensor, num_experts: int, *, index_dtype: torch.dtype = torch.int32) -> Routing:
    """Sorts a router's choices by expert, once for all projections of a layer.

    top_idx [T, top_k], int32 or int64: the expert of each choice; -1, or any value outside 0 .. num_experts - 1, leaves
    the entry out (an expert on another rank): it takes part in no sum and its rows of an output are zero.
    index_dtype: int32 or int64, of the result.

    Returns a `Routing`. The sort is stable and nothing waits for the GPU. Raises ValueError that names the argument."""
    check_tensor("top_idx", top_idx, ("T", "top_k"))
    num_experts = check_whole("num_experts", num_experts, 1, _native.max_experts)
    _check_index_dtype(index_dtype)
    return Routing(*_OP.call(top_idx.contiguous(), num_experts, index_dtype), top_idx.shape[1])


def _check_counts(tokens_per_expert):
    """As a tensor [E] of int64 with at least one expert."""
    name, counts = "tokens_per_expert", tokens_per_expert
    if isinstance(counts, (list, tuple)):
        counts = torch.tensor(
            [check_whole(f"{name}[{e}]", count, 0, INT64_MAX) for e, count in enumerate(counts)], dtype=torch.int64
        )
    check_tensor(name, counts, ("E",))
    if counts.dtype.is_floating_point or counts.dtype.is_complex or counts.dtype == torch.bool:
        raise ValueError(f"{name}: expected whole numbers, got {counts.dtype}")
    check_whole(f"length of {name}", counts.shape[0], 1, _native.max_experts)
    return counts.long()


def routing_of_counts(tokens_per_expert: torch.Tensor | Sequence[int], rows: Optional[int] = None, *,
                      device: Optional[torch.device | str | int] = None, index_dtype: torch.dtype = torch.int32) -> Routing:
    """The `Routing` of rows that their caller has sorted by expert, as Megatron-Core, torchtitan and NeMo do: the rows of
    expert 0, then those of expert 1, and so on. It is for `moe_lora_linear` with x_rows="grouped" and for `moe_lora_mlp`. Each row
    is a token with one expert: top_k is 1, and gates are [rows, 1].

    tokens_per_expert [E]: the number of rows of each expert, a tensor of integers or a list. rows: how many rows there are;
    those beyond the sum of tokens_per_expert are padding, which is left out: its rows of an output are zero. Without `rows` it
    is that sum, for which the host waits if the tensor is on a GPU. device: of the rows, that of the tensor unless given.
    index_dtype: int32 or int64, of the result.

    Raises ValueError that names the argument. The values of a tensor on a GPU are not looked at: there a negative number
    counts as 0, and rows beyond `rows` are cut off."""
    counts = _check_counts(tokens_per_expert)
    _check_index_dtype(index_dtype)
    most = INT32_MAX if index_dtype == torch.int32 else INT64_MAX
    if counts.device.type == "cpu" and not torch.compiler.is_compiling():
        least = int(counts.min())
        if least < 0:
            raise ValueError(f"tokens_per_expert: expected 0 or more, got {least} of expert {int(counts.argmin())}")
        total = int(counts.sum())
        if rows is not None and check_whole("rows", rows, 0, most) < total:
            raise ValueError(f"rows: expected at least {total}, the sum of tokens_per_expert, got {rows}")
    rows = check_whole("rows", int(counts.sum()) if rows is None else rows, 0, most)
    counts = counts.to(counts.device if device is None else device, non_blocking=True)
    ends = counts.clamp(min=0).cumsum(0).clamp(max=rows)
    entries = torch.arange(rows, device=ends.device)
    experts = torch.searchsorted(ends, entries, right=True)
    return Routing(experts.to(index_dtype), entries.to(index_dtype), ends.to(index_dtype), 1)
