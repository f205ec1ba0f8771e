"""Weights as compressed-tensors packs them: Kimi-K2's int4, llm-compressor's NVFP4."""

import torch

from smlora._arguments import described
from smlora.quantized._nvfp4 import from_nvfp4
from smlora.quantized._stack import matrices, parts_of, stacked
from smlora.quantized._weight import QuantizedWeight


def _columns_of(shape, packed):
    """Columns of a weight_shape, that of one expert or of all, or as many as the codes hold."""
    if shape is None:
        return packed.shape[2] * (8 if packed.dtype == torch.int32 else 2)
    while isinstance(shape, (list, tuple)) and shape and not isinstance(shape[0], int):
        shape = shape[0]
    if isinstance(shape, torch.Tensor):
        shape = shape.reshape(-1, shape.shape[-1])[0].tolist()
    return int(shape[-1])


def from_compressed_tensors(weight_packed, weight_scale, *, weight_global_scale=None, weight_shape=None,
                            weight_zero_point=None, weight_g_idx=None, parts=1):
    """A `QuantizedWeight` [E, rows, columns] of the tensors that a checkpoint has for each Linear, by their names there.

    With weight_global_scale (nvfp4-pack-quantized): as `from_nvfp4` with a divisor. Without it (pack-quantized, int4):
    weight_packed int32 [E, rows, columns / 8], weight_scale bfloat16, float16 or float32 [E, rows, columns / group],
    weight_shape as the checkpoint has it. Each may be a list with an entry for each expert, or with a list of its parts, such
    as gate and up; these are stacked. Nothing else is copied. Other widths than 4 bits, zero points and reordered groups
    (weight_g_idx) are refused. Raises ValueError that names the argument."""
    for name, value in (("weight_zero_point", weight_zero_point), ("weight_g_idx", weight_g_idx)):
        if value is not None:
            raise ValueError(f"{name}: expected None, as smlora has symmetric groups in order alone, got {described(value)}")
    if weight_global_scale is not None:
        return from_nvfp4(weight_packed, weight_scale, weight_global_scale, divisor=True, parts=parts)
    parts = parts_of(weight_packed, parts)
    packed, scale = stacked("weight_packed", weight_packed), stacked("weight_scale", weight_scale)
    if scale.dtype == torch.float8_e4m3fn:
        raise ValueError("weight_global_scale: expected a tensor, as weight_scale is of float8_e4m3fn (nvfp4), got None")
    E, rows, _ = matrices("weight_packed", packed, 8)
    columns = _columns_of(weight_shape, packed)
    if scale.dim() != 3 or scale.shape[2] < 1 or columns % scale.shape[2]:
        raise ValueError(
            f"weight_scale: expected [E, rows, groups] with a divisor of columns = {columns} as groups, got {list(scale.shape)}"
        )
    return QuantizedWeight("int4", E, rows, columns, packed, scale, block=columns // scale.shape[2], parts=parts).check()
