"""Quantised weights of plain ones."""

from typing import Optional

import torch

from smlora._arguments import INT32_MAX, check_choice, check_flag, check_tensor, check_whole
from smlora._without_gradients import without_gradients
from smlora.quantized._encode import ENCODERS, pack
from smlora.quantized._tables import dynamic_table, table_of
from smlora.quantized._weight import QuantizedWeight

_BLOCKS = {"nf4": 64, "fp4": 64, "mxfp4": 32, "nvfp4": 16, "fp8": 128, "mxfp8": 32, "int8": 0, "int4": 32}
"""What `block` is unless given."""

_ANY_BLOCK = ("nf4", "fp4", "fp8", "int4")
_TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_OUTER_BLOCK = 256


def _nearest_in_blocks(values, block, table):
    """(indices into a table of values from -1 to 1, fp32 scales), of values that are a vector. As bitsandbytes has it: the
    largest magnitude of a block is its scale, and of two values as near the lesser."""
    blocks = torch.nn.functional.pad(values.float(), (0, -values.numel() % block)).view(-1, block)
    scales = blocks.abs().amax(1)
    scaled = (blocks * (1 / scales.clamp(min=1e-38)).unsqueeze(1)).clamp(-1, 1)
    ascending, order = table.sort(stable=True)
    codes = order.to(torch.uint8)[torch.bucketize(scaled, (ascending[:-1] + ascending[1:]) / 2, out_int32=True)]
    return codes.view(-1)[: values.numel()], scales


def _double(scales):
    """The fields of scales that are quantised themselves."""
    table, offset = dynamic_table(scales.device), scales.mean()
    codes, outer = _nearest_in_blocks(scales - offset, _OUTER_BLOCK, table)
    return {"scales": codes, "outer_scales": outer, "outer_table": table,
            "outer_offset": offset.view(1), "outer_block": _OUTER_BLOCK}


def _bitsandbytes(weight, encoding, block, double):
    """Blocks count along all values, which are taken in pieces of whole blocks that are hardly larger than an expert."""
    flat, table = weight.reshape(-1), table_of(encoding, weight.device)
    piece = -(-flat.numel() // weight.shape[0] // block) * block
    codes = weight.new_empty((flat.numel() + 1) // 2, dtype=torch.uint8)
    scales = weight.new_empty(-(-flat.numel() // block), dtype=torch.float32)
    for first in range(0, flat.numel(), piece):
        found, of_blocks = _nearest_in_blocks(flat[first : first + piece], block, table)
        found = torch.nn.functional.pad(found, (0, found.numel() % 2))
        packed = pack(found.view(-1, 2).flip(1))  # the high nibble first
        codes[first // 2 : first // 2 + packed.shape[0]] = packed.view(-1)
        scales[first // block : first // block + of_blocks.numel()] = of_blocks
    fields = _double(scales) if double else {"scales": scales}
    return {"codes": codes, "table": table, **fields}


def _expert_by_expert(weight, encoding, block, parts):
    fields, dtype = {}, torch.float32 if weight.dtype == torch.float64 else weight.dtype
    for e, matrix in enumerate(weight):
        for name, tensor in ENCODERS[encoding](matrix.float(), block=block, parts=parts, dtype=dtype).items():
            if e == 0:
                fields[name] = tensor.new_empty((weight.shape[0], *tensor.shape))
            fields[name][e] = tensor
    return fields


def _check_of_the_library(encoding, block):
    """Of blocks along all values, with the smallest weight."""
    codes, scales, table = (torch.empty(n, dtype=dtype, device="cpu")
                            for n, dtype in ((1, torch.uint8), (1, torch.float32), (16, torch.float32)))
    try:
        QuantizedWeight(encoding, 1, 1, 2, codes, scales, block=block, table=table).check()
    except ValueError as error:
        raise ValueError(str(error).removeprefix("weight.")) from None


def check_options(encoding, block, double):
    """(block, double) of `quantize`, as numbers."""
    double = check_flag("double", double)
    if block is None:
        block = _BLOCKS[encoding]
    elif encoding in _ANY_BLOCK:
        block = check_whole("block", block, 1, INT32_MAX)
    elif block != _BLOCKS[encoding]:
        raise ValueError(f"block: expected None for {encoding}, whose block is fixed, got {block}")
    if encoding in ("nf4", "fp4"):
        _check_of_the_library(encoding, block)
    elif double:
        raise ValueError(f"double: expected False for {encoding}, whose scales are not quantised, got True")
    elif encoding == "int4" and block % 2:
        raise ValueError(f"block: expected an even number for int4, got {block}")
    return block, double


@without_gradients
def quantize(weight: torch.Tensor, encoding: str, *, block: Optional[int] = None, double: bool = False,
             parts: int = 1) -> QuantizedWeight:
    """A `QuantizedWeight` of a plain weight.

    weight: [E, rows, columns] or the transpose of that, in bfloat16, float16, float32 or float64; the result is a view of the
    same shape. encoding: "nf4", "fp4", "mxfp4", "nvfp4", "fp8", "mxfp8", "int8" or "int4". block: values that share a scale; 64
    for nf4 and fp4, a square of 128 x 128 for fp8 and 32 for int4 unless given. double: of nf4 and fp4, whether their scales
    are quantised, too. parts: equal ranges of rows that are quantised apart, such as gate and up (nvfp4, fp8).

    nf4, fp4 and int8 give the codes that bitsandbytes gives; in a last block that is not whole, values in the middle between two of
    fp4 may go to the other. Runs on the weight's device, expert by expert. Has no derivative.
    Raises ValueError that names the argument."""
    check_tensor("weight", weight, ("E", "rows", "columns"))
    if weight.dtype not in _TYPES:
        raise ValueError(f"weight: expected bfloat16, float16, float32 or float64, got {weight.dtype}")
    check_choice("encoding", encoding, _BLOCKS)
    if weight.stride(2) != 1 and weight.stride(1) == 1:
        stored = quantize(weight.transpose(1, 2), encoding, block=block, double=double, parts=parts)
        return stored.transpose(1, 2)
    E, rows, columns = weight.shape
    if weight.numel() == 0:
        raise ValueError(f"weight: expected values, got {list(weight.shape)}")
    parts, (block, double) = check_whole("parts", parts, 1, rows), check_options(encoding, block, double)
    if rows % parts:
        raise ValueError(f"parts: expected a divisor of rows = {rows}, got {parts}")
    if encoding in ("nf4", "fp4"):
        fields = _bitsandbytes(weight.detach(), encoding, block, double)
    else:
        if encoding != "fp8" and block and columns % block:
            raise ValueError(f"weight: expected a multiple of {block} columns for {encoding}, got {columns}")
        fields = _expert_by_expert(weight.detach(), encoding, block, parts)
    return QuantizedWeight(encoding, E, rows, columns, block=block, parts=parts, **fields).check()
