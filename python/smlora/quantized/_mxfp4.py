"""Weights of e2m1 or e4m3 values with a power of two for each 32 of a row: gpt-oss, DeepSeek-V4, torchao."""

from smlora.quantized._names import names_arguments
from smlora.quantized._stack import Tensors, matrices, stacked
from smlora.quantized._weight import QuantizedWeight


@names_arguments(codes="blocks", scales="scales")
def from_mxfp4(blocks: Tensors, scales: Tensors) -> QuantizedWeight:
    """A `QuantizedWeight` [E, rows, columns] of MXFP4.

    blocks: uint8 or int8 [E, rows, columns / 32, 16] (gpt-oss's `*_blocks`) or [E, rows, columns / 2] (DeepSeek-V4, whose
    experts Transformers keeps as int8), the low nibble first. scales: uint8 or float8_e8m0fnu [E, rows, columns / 32]; the byte
    255 is 2^128 as uint8, as gpt-oss has it, and NaN as float8_e8m0fnu. Either may be a list with a tensor for each expert,
    which is stacked. Nothing else is copied. gpt-oss stores rows = out: pass it as `.transpose(1, 2)`.
    Raises ValueError that names the argument."""
    blocks, scales = stacked("blocks", blocks), stacked("scales", scales)
    if blocks.dim() == 4:
        E, rows, groups, _ = blocks.shape
        columns = groups * 32
    else:
        E, rows, columns = matrices("blocks", blocks, 2)
    if columns % 32 or (blocks.dim() == 4 and blocks.shape[3] != 16):
        raise ValueError(
            "blocks: expected [E, rows, columns / 32, 16] or [E, rows, columns / 2] with columns a multiple of 32, got "
            f"{list(blocks.shape)}"
        )
    return QuantizedWeight("mxfp4", E, rows, columns, blocks, scales, block=32).check()


@names_arguments(codes="codes", scales="scales")
def from_mxfp8(codes: Tensors, scales: Tensors) -> QuantizedWeight:
    """A `QuantizedWeight` [E, rows, columns] of MXFP8: codes float8_e4m3fn [E, rows, columns], scales uint8 or float8_e8m0fnu
    [E, rows, columns / 32]. Lists and errors as of `from_mxfp4`."""
    codes, scales = stacked("codes", codes), stacked("scales", scales)
    return QuantizedWeight("mxfp8", *matrices("codes", codes, 1), codes, scales, block=32).check()
