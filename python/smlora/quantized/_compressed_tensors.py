"""Weights as compressed-tensors packs them: Kimi-K2's int4, llm-compressor's NVFP4."""

from typing import Any, Optional

import torch

from smlora._arguments import INT64_MAX, check_whole, described
from smlora.quantized._names import names_arguments
from smlora.quantized._nvfp4 import nvfp4_of
from smlora.quantized._stack import Tensors, matrices, parts_of, stacked
from smlora.quantized._weight import QuantizedWeight


def _flat(entries):
    for entry in entries:
        yield from _flat(entry) if isinstance(entry, (list, tuple)) else [entry]


def _matrix_shapes(shape):
    """[(rows, columns), ..] of a weight_shape, that of a matrix or of several."""
    entries = list(_flat([shape]))
    if entries and all(isinstance(entry, torch.Tensor) for entry in entries):
        entries = torch.cat([entry.reshape(-1) for entry in entries]).tolist()  # waits for a GPU once
    numbers = [check_whole("weight_shape", entry, 0, INT64_MAX) for entry in entries]
    if not numbers or len(numbers) % 2:
        raise ValueError(f"weight_shape: expected [rows, columns] of one matrix or of each, got {described(shape)}")
    return list(zip(numbers[::2], numbers[1::2]))


def _columns_of(shape, E, rows, parts, packed):
    """What weight_shape says of them, or as many as the codes hold."""
    in_a_word = 8 if packed.dtype == torch.int32 else 2
    most = packed.shape[2] * in_a_word
    if shape is None:
        return most
    matrices = _matrix_shapes(shape)
    if len(matrices) not in (1, E, E * parts):
        counts = " or ".join(str(count) for count in dict.fromkeys((1, E, E * parts)))
        raise ValueError(f"weight_shape: expected {counts} pairs of rows and columns, got {len(matrices)}")
    of_an_expert = parts if parts > 1 and len(matrices) == E * parts else 1
    columns = matrices[0][1]
    for first in range(0, len(matrices), of_an_expert):
        expert = matrices[first : first + of_an_expert]
        if sum(found for found, _ in expert) != rows or any(found != columns for _, found in expert):
            got = [list(matrix) for matrix in expert]
            raise ValueError(
                f"weight_shape: expected {rows} rows, as weight_packed has, and {columns} columns for expert "
                f"{first // of_an_expert}, got {got if len(got) > 1 else got[0]}"
            )
    if -(-columns // in_a_word) != packed.shape[2]:
        raise ValueError(
            f"weight_shape: expected {most - in_a_word + 1} to {most} columns, which weight_packed {list(packed.shape)} holds, "
            f"got {columns}"
        )
    return columns


@names_arguments(codes="weight_packed", scales="weight_scale", global_scales="weight_global_scale", parts="parts")
def from_compressed_tensors(weight_packed: Tensors, weight_scale: Tensors, *, weight_global_scale: Optional[Tensors] = None,
                            weight_shape: Any = None, weight_zero_point: Optional[Tensors] = None,
                            weight_g_idx: Optional[Tensors] = None, parts: int = 1) -> QuantizedWeight:
    """A `QuantizedWeight` [E, rows, columns] of the tensors that a checkpoint has for each Linear, by their names there.

    With weight_global_scale (nvfp4-pack-quantized): as `from_nvfp4` with a divisor. Without it (pack-quantized, int4):
    weight_packed int32 [E, rows, columns / 8], weight_scale bfloat16, float16 or float32 [E, rows, columns / group],
    weight_shape as the checkpoint has it: [rows, columns] of an expert, or of each expert or part. Each may be a list with an
    entry for each expert, or with a list of its parts, such as gate and up; these are stacked. Nothing else is copied. Other
    widths than 4 bits, zero points and reordered groups (weight_g_idx) are refused. Raises ValueError that names the argument.
    """
    for name, value in (("weight_zero_point", weight_zero_point), ("weight_g_idx", weight_g_idx)):
        if value is not None:
            raise ValueError(f"{name}: expected None, as smlora has symmetric groups in order alone, got {described(value)}")
    if weight_global_scale is not None:
        names = ("weight_packed", "weight_scale", "weight_global_scale")
        weight = nvfp4_of(names, weight_packed, weight_scale, weight_global_scale, True, parts)
        _columns_of(weight_shape, weight.E, weight.rows, weight.parts, weight.codes)
        return weight
    parts = parts_of(weight_packed, parts)
    packed, scale = stacked("weight_packed", weight_packed), stacked("weight_scale", weight_scale)
    if scale.dtype == torch.float8_e4m3fn:
        raise ValueError("weight_global_scale: expected a tensor, as weight_scale is of float8_e4m3fn (nvfp4), got None")
    E, rows, _ = matrices("weight_packed", packed, 8)
    columns = _columns_of(weight_shape, E, rows, parts, packed)
    if scale.dim() != 3 or scale.shape[2] < 1 or columns % scale.shape[2]:
        raise ValueError(
            f"weight_scale: expected [E, rows, groups] with a divisor of columns = {columns} as groups, got {list(scale.shape)}"
        )
    return QuantizedWeight("int4", E, rows, columns, packed, scale, block=columns // scale.shape[2], parts=parts).check()
