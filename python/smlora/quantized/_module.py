"""A quantised weight as a part of a module."""

import torch

from smlora._library import DTYPES, PACKED_DTYPES
from smlora.quantized._weight import QuantizedWeight

_OF_ALL_EXPERTS = ("table", "outer_table", "outer_offset")
_KNOWN_TYPES = DTYPES + PACKED_DTYPES


class QuantizedParameters(torch.nn.Module):
    """The tensors of a `QuantizedWeight` as frozen parameters of bytes. Called, it gives the weight, of the same memory. No
    cast of the module changes them, and what shards parameters along their first dimension shards them along the experts.

    Tensors with values for each expert are parameters [E, bytes], or [bytes] where a block of nf4 or fp4 holds values of two
    experts. Those for all experts are buffers, and so is `format`: loading a state_dict of another format is an error.
    storage: uint8, or the type that the bytes are seen as. FSDP2 takes parameters of floating point alone: give it the
    param_dtype of its MixedPrecisionPolicy, else bfloat16."""

    def __init__(self, weight, *, storage=torch.uint8):
        super().__init__()
        self._format, self._types = weight.format, {}
        whole = _straddles(weight)
        for name, tensor in weight.tensors().items():
            by_expert = not whole and name not in _OF_ALL_EXPERTS
            # The extents of one expert; None where they do not begin with the experts.
            self._types[name] = tensor.dtype, tuple(tensor.shape[1:]) if by_expert and tensor.shape[0] == weight.E else None
            stored = tensor.detach().contiguous().view(-1).view(torch.uint8)
            stored = stored.view(weight.E, -1) if by_expert else stored
            if name in _OF_ALL_EXPERTS:
                self.register_buffer(name, stored)
                continue
            if stored.shape[-1] % storage.itemsize:
                raise ValueError(
                    f"storage: expected a type whose size divides the {stored.shape[-1]} bytes of weight.{name}, got {storage}"
                )
            self.register_parameter(name, torch.nn.Parameter(stored.view(storage), requires_grad=False))
        self.register_buffer("format", torch.tensor(self._numbers()))

    def _numbers(self):
        """What has to be the same to read the bytes in the same way."""
        encoding, _, *rest = self._format.numbers()
        return [encoding, *rest, *(_KNOWN_TYPES.index(dtype) for dtype, _ in self._types.values())]

    def forward(self):
        tensors, E = {}, self._format.E
        for name, (dtype, shape) in self._types.items():
            stored = getattr(self, name)
            if stored.dim() == 2:
                E = stored.shape[0]
            values = stored.view(torch.uint8).view(dtype)
            tensors[name] = values if shape is None else values.view(-1, *shape)
        return QuantizedWeight.from_tensors(self._format._replace(E=E), tensors)

    def _is_no_tensor(self, *_arguments, **_named):
        raise NotImplementedError(
            "a quantised weight that a module holds is no tensor; call it for its QuantizedWeight. Of Transformers' "
            'implementations of experts smlora\'s alone computes with it: model.set_experts_implementation("smlora")'
        )

    # What the others do first with a weight of experts.
    __getitem__ = transpose = _is_no_tensor

    def _apply(self, fn, recurse=True):
        """Bytes that are seen as numbers must not be cast as those."""

        def apply(tensor):
            stored = tensor.view(torch.uint8)
            changed = fn(stored)
            # Module.type casts what no other cast does.
            return (changed if changed.dtype == torch.uint8 else stored).view(tensor.dtype)

        return super()._apply(apply, recurse)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        stored = state_dict.get(f"{prefix}format")
        if stored is not None and stored.tolist() != self._numbers():
            error_msgs.append(
                f"{prefix}format: expected {self._numbers()}, got {stored.tolist()}: the weight is stored otherwise"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def extra_repr(self):
        return repr(self())


def _straddles(weight):
    """Whether a block, or a block of blocks, of nf4 or fp4 holds values of two experts."""
    values = weight.rows * weight.columns
    return weight.table is not None and values % (weight.block * max(1, weight.outer_block)) != 0
