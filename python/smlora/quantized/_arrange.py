"""The operator that puts the scales of a weight into the order of products that decode it."""

import torch

from smlora import _native
from smlora._operator import library_operator


def _elements(encoding, block, given):
    """(type, elements) of the scales of 64 x 64 values once they are arranged."""
    if encoding in ("nf4", "fp4"):
        return torch.float32, 64
    if encoding == "fp8":
        return torch.float32, 4
    if encoding == "nvfp4":
        return torch.bfloat16, 4 * 64 + 8
    return given, 64 if encoding == "int4" and block >= 64 else 128


def _arranged(codes, weight_parts, weight_format):
    encoding, E, rows, columns, block, *_ = weight_format
    scales = weight_parts[0]
    dtype, elements = _elements(_native.encodings[encoding], block, scales.dtype)
    return (scales.new_empty((E, -(-rows // 256) * 4, -(-columns // 256) * 4, elements), dtype=dtype),)


arrange_op = library_operator("arrange_scales", _arranged).without_derivative()
