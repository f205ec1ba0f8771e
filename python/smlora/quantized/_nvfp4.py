"""Weights of e2m1 values with an e4m3 scale for each 16 of a row and an fp32 one: modelopt, torchao, compressed-tensors."""

from typing import Any

import torch

from smlora._arguments import check_flag, check_number, described
from smlora.quantized._names import names_arguments
from smlora.quantized._stack import Tensors, matrices, parts_of, stacked
from smlora.quantized._weight import QuantizedWeight


def global_scales_of(name, value, E, parts, device):
    """fp32 [E, parts] of a number, or of a tensor or nested lists that have one for all, for each expert or for each part."""
    if isinstance(value, (list, tuple)):
        flat = [scale for entry in value for scale in (entry if isinstance(entry, (list, tuple)) else [entry])]
        value = torch.stack([torch.as_tensor(scale, dtype=torch.float32, device=device).reshape(()) for scale in flat])
    elif not isinstance(value, torch.Tensor):
        value = torch.tensor(check_number(name, value), dtype=torch.float32)
    if value.dtype != torch.float32 or value.numel() not in (1, E, E * parts):
        raise ValueError(
            f"{name}: expected float32, one number, [E] = [{E}] or [E, parts] = [{E}, {parts}], got {described(value)} of "
            f"{value.dtype}"
        )
    value = value.to(device)
    return value.reshape(E if value.numel() > 1 else 1, -1).expand(E, parts)


def nvfp4_of(names, packed, scales, global_scale, divides, parts):
    """What `from_nvfp4` gives. names: of the three tensors, for errors."""
    parts = parts_of(packed, parts)
    packed, scales = stacked(names[0], packed), stacked(names[1], scales)
    E, rows, columns = matrices(names[0], packed, 2)
    return QuantizedWeight(
        "nvfp4", E, rows, columns, packed, scales, block=16, parts=parts,
        global_scales=global_scales_of(names[2], global_scale, E, parts, packed.device),
        global_scale="divisor" if divides else "factor"
    ).check()


@names_arguments(codes="packed", scales="scales", global_scales="global_scale", parts="parts")
def from_nvfp4(packed: Tensors, scales: Tensors, global_scale: Any, divisor: bool = False, parts: int = 1) -> QuantizedWeight:
    """A `QuantizedWeight` [E, rows, columns] of NVFP4.

    packed: uint8 [E, rows, columns / 2], the low nibble first. scales: float8_e4m3fn [E, rows, columns / 16]. global_scale:
    float32, one for all, for each expert or for each part of it ([E, parts], such as of gate and up, which differ): modelopt's
    `weight_scale_2` and torchao's `per_tensor_scale` are factors, compressed-tensors' `weight_global_scale` is a divisor.
    Each may be a list with an entry for each expert, or with a list for its parts; these are stacked. Nothing else is copied.
    Raises ValueError that names the argument."""
    divides = check_flag("divisor", divisor)
    return nvfp4_of(("packed", "scales", "global_scale"), packed, scales, global_scale, divides, parts)
