"""Weights that the backward pass makes anew instead of keeping them."""

import contextlib

import torch

from smlora.quantized import QuantizedWeight


def _place(tensor):
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _differentiated(weight):
    """The tensor that autograd keeps."""
    return weight.codes if isinstance(weight, QuantizedWeight) else weight


def made_anew(weight, make):
    """A context in which autograd keeps `make` in the place of the weight: a function that gives the like of it. What else is
    kept goes through the hooks that are active already, such as those of checkpointing and offloading."""
    if make is None or not torch.is_grad_enabled():
        return contextlib.nullcontext()
    place = _place(_differentiated(weight))
    outer = torch._C._autograd._top_saved_tensors_default_hooks(False)

    def pack(tensor):
        if _place(tensor) == place:
            return True, None
        return False, tensor if outer is None else outer[0](tensor)

    def unpack(kept):
        is_weight, packed = kept
        if is_weight:
            return _differentiated(make())
        return packed if outer is None else outer[1](packed)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
