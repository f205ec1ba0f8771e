"""A quantised weight as a part of a module."""

from typing import Any, NoReturn

import torch

from smlora._arguments import described
from smlora._library import DTYPES, PACKED_DTYPES
from smlora.quantized._weight import QuantizedWeight

_OF_ALL_EXPERTS = ("table", "outer_table", "outer_offset")
_KNOWN_TYPES = DTYPES + PACKED_DTYPES


class QuantizedParameters(torch.nn.Module):
    """The tensors of a `QuantizedWeight` as frozen parameters of bytes. Called, it gives the weight, of the same memory. No
    cast of the module changes them, and what shards parameters along their first dimension shards them along the experts.

    Tensors with values for each expert are parameters [E, .., bytes], or [bytes] where a block of nf4 or fp4 holds values of
    two experts. Those for all experts are buffers of their own type, and so is `format`: loading a state_dict of another format
    is an error. storage: uint8, or the type that the bytes are seen as, [E, ..]. FSDP2 takes parameters of floating point alone:
    give it the param_dtype of its MixedPrecisionPolicy, else bfloat16."""

    def __init__(self, weight: QuantizedWeight, *, storage: torch.dtype = torch.uint8) -> None:
        if not isinstance(weight, QuantizedWeight):
            raise ValueError(f"weight: expected a QuantizedWeight, got {described(weight)}")
        if not isinstance(storage, torch.dtype):
            raise ValueError(f"storage: expected a type of torch, got {described(storage)}")
        super().__init__()
        self._storage = storage
        self.take(weight)

    def take(self, weight: QuantizedWeight) -> None:
        """Holds this weight from now on, in the same storage."""
        storage = self._storage
        self._format, self._types, self._views = weight.format, {}, {}
        whole = _straddles(weight)
        self._by_expert = not whole
        for name, tensor in weight.tensors().items():
            self._types[name], self._views[name] = tensor.dtype, ()
            stored = tensor.detach().contiguous()
            if name in _OF_ALL_EXPERTS:
                self.register_buffer(name, stored)
                continue
            if whole:
                stored = stored.view(-1)
            elif stored.dim() == 1 or stored.shape[0] != weight.E:
                stored = stored.view(weight.E, -1)
            shape, stored = (-1, *stored.shape[1:]), stored.view(torch.uint8)
            self._views[name] = _steps(storage, tensor.dtype)
            if storage != torch.uint8:
                # The bytes of a row may be no multiple of its size.
                stored = stored.view(-1) if whole else stored.view(weight.E, -1)
                self._views[name] = (*self._views[name], shape)
            if stored.shape[-1] % storage.itemsize:
                raise ValueError(
                    f"storage: expected a type whose size divides the {stored.shape[-1]} bytes of weight.{name}, got {storage}"
                )
            self.register_parameter(name, torch.nn.Parameter(stored.view(storage), requires_grad=False))
        self.register_buffer("format", torch.tensor(self._numbers()))

    def _numbers(self):
        """What has to be the same to read the bytes in the same way."""
        encoding, _, *rest = self._format.numbers()
        return [encoding, *rest, *(_KNOWN_TYPES.index(dtype) for dtype in self._types.values())]

    def forward(self) -> QuantizedWeight:
        # Neither tensors nor views of them are kept from one call to the next: others may have taken their place.
        tensors, parameters, buffers = {}, self._parameters, self._buffers
        for name, steps in self._views.items():
            values = parameters.get(name)
            if values is None:
                values = buffers.get(name)
            if values is None:  # an attribute of what shards or parametrises it
                values = getattr(self, name)
            for step in steps:
                values = values.view(step)
            tensors[name] = values
        format = self._format
        if self._by_expert and tensors["codes"].shape[0] != format.E:  # one of several shards
            format = format._replace(E=tensors["codes"].shape[0])
        return QuantizedWeight.from_tensors(format, tensors)

    def _is_no_tensor(self, *_arguments: Any, **_named: Any) -> NoReturn:
        raise NotImplementedError(
            "this weight is quantised, and not a tensor: only smlora's experts compute with it. Call "
            'model.set_experts_implementation("smlora"); in code of your own, calling the weight gives its QuantizedWeight'
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
        state_dict = state_dict | self._seen_as_here(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def _seen_as_here(self, state_dict, prefix):
        """Of parameters that were saved with another `storage`: their bytes, which must not be cast as numbers."""
        seen = {}
        for name, parameter in self._parameters.items():
            stored = state_dict.get(f"{prefix}{name}")
            if stored is not None and stored.dtype != parameter.dtype and stored.nbytes == parameter.nbytes:
                # Copied, as in a file they may begin where no number of that type can.
                flat = stored.reshape(-1).view(torch.uint8).clone()
                seen[f"{prefix}{name}"] = flat.view(parameter.dtype).view(parameter.shape)
        return seen

    def extra_repr(self) -> str:
        return repr(self())


def _steps(stored, dtype):
    """The views that make values of `dtype` of what is stored as bytes that are seen as `stored`."""
    if stored == dtype:
        return ()
    return (dtype,) if torch.uint8 in (stored, dtype) else (torch.uint8, dtype)


def _straddles(weight):
    """Whether a block, or a block of blocks, of nf4 or fp4 holds values of two experts."""
    values = weight.rows * weight.columns
    return weight.table is not None and values % (weight.block * max(1, weight.outer_block)) != 0
