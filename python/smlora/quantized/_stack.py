"""Tensors of single experts as one."""

from typing import Sequence

import torch

from smlora._arguments import check_whole, described, INT32_MAX


Tensors = torch.Tensor | Sequence[torch.Tensor | Sequence[torch.Tensor]]
"""Of all experts, or of each."""


def _joined(name, parts):
    for part in parts:
        if not isinstance(part, torch.Tensor):
            raise ValueError(f"{name}: expected a tensor, got {described(part)}")
    if len(parts) == 1:
        return parts[0]
    if len({(part.shape[1:], part.dtype, part.device) for part in parts}) > 1:
        shapes = ", ".join(f"{list(part.shape)} of {part.dtype}" for part in parts)
        raise ValueError(f"{name}: expected parts of the same type and columns, got {shapes}")
    return torch.cat(parts)


def stacked(name, value):
    """A tensor as it is. Those of a list, one for each expert, become one with the experts first; an entry that is a list
    itself has the parts of an expert, which follow each other along its rows."""
    if isinstance(value, torch.Tensor):
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"{name}: expected a tensor or a list of them, one for each expert, got {described(value)}")
    experts = []
    for e, entry in enumerate(value):
        expert = _joined(f"{name}[{e}]", entry if isinstance(entry, (list, tuple)) else [entry])
        experts.append(expert)
        if (expert.shape, expert.dtype, expert.device) != (experts[0].shape, experts[0].dtype, experts[0].device):
            raise ValueError(
                f"{name}[{e}]: expected {list(experts[0].shape)} of {experts[0].dtype} on {experts[0].device}, as of expert 0, "
                f"got {list(expert.shape)} of {expert.dtype} on {expert.device}"
            )
    return torch.stack(experts)


def parts_of(value, parts):
    """The number of parts: that of the lists within a list of experts, else `parts`."""
    parts = check_whole("parts", parts, 1, INT32_MAX)
    nested = isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple))
    if not nested:
        return parts
    if parts not in (1, len(value[0])):
        raise ValueError(f"parts: expected {len(value[0])}, as many as each expert has tensors, got {parts}")
    return len(value[0])


def matrices(name, codes, packed):
    """(E, rows, columns) of codes [E, rows, columns / packed]."""
    if codes.dim() != 3:
        raise ValueError(f"{name}: expected a tensor [E, rows, columns{f' / {packed}' if packed > 1 else ''}], got "
                         f"{list(codes.shape)}")
    E, rows, width = codes.shape
    return E, rows, width * packed
