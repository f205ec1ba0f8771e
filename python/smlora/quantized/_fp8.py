"""Weights of e4m3 values with a scale for each square: DeepSeek-V3, Qwen3-FP8."""

from smlora._arguments import INT32_MAX, check_whole
from smlora.quantized._names import names_arguments
from smlora.quantized._stack import Tensors, matrices, parts_of, stacked
from smlora.quantized._weight import QuantizedWeight


def _square(block):
    """The side of it, of a number or of a config's weight_block_size."""
    if isinstance(block, (list, tuple)) and len(block) == 2 and block[0] == block[1]:
        block = block[0]
    elif isinstance(block, (list, tuple)):
        raise ValueError(f"block: expected a number or two that are the same, got {block}")
    return check_whole("block", block, 1, INT32_MAX)


@names_arguments(codes="weight", scales="scale_inv", block="block", parts="parts")
def from_fp8(weight: Tensors, scale_inv: Tensors, block: int = 128, parts: int = 1) -> QuantizedWeight:
    """A `QuantizedWeight` [E, rows, columns] of FP8 with a scale for each square of `block` x `block` values.

    weight: float8_e4m3fn [E, rows, columns]. scale_inv: what the values are multiplied with, float32, bfloat16 or
    float8_e8m0fnu [E, parts * ceil(rows / parts / block), ceil(columns / block)]. block: a number, or a config's
    weight_block_size; take it from there, as the shapes do not determine it. parts: equal ranges of rows, such as gate and up,
    whose squares are counted anew. Either tensor may be a list with a tensor for each expert, or with a list of its parts;
    these are stacked. Nothing else is copied. Raises ValueError that names the argument."""
    block, parts = _square(block), parts_of(weight, parts)
    weight, scale_inv = stacked("weight", weight), stacked("scale_inv", scale_inv)
    return QuantizedWeight("fp8", *matrices("weight", weight, 1), weight, scale_inv, block=block, parts=parts).check()
