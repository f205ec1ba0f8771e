"""Weights that are torchao's tensors."""

import torch

from smlora._arguments import described
from smlora.quantized._fp8 import from_fp8
from smlora.quantized._mxfp4 import from_mxfp4, from_mxfp8
from smlora.quantized._nvfp4 import from_nvfp4
from smlora.quantized._weight import QuantizedWeight

_REFUSED = {
    "Int8Tensor": ", whose scales are the steps themselves, which a row's largest value / 127 does not give to the bit",
    "Int4Tensor": ", whose groups have zero points",
}
"""What smlora's encodings cannot say of them."""


def _stored(tensor):
    """(codes, scales, transposed) with contiguous rows."""
    codes, scales = tensor.qdata, tensor.scale
    if codes.dim() == 3 and not codes.is_contiguous() and codes.transpose(1, 2).is_contiguous():
        return codes.transpose(1, 2), scales.transpose(1, 2), True
    return codes, scales, False


def _mx(tensor, codes, scales):
    makers = {torch.float8_e4m3fn: from_mxfp8, getattr(torch, "float4_e2m1fn_x2", "fp4_e2m1"): from_mxfp4}
    maker = makers.get(tensor.elem_dtype)
    if maker is None or tensor.block_size != 32:
        raise ValueError(
            f"tensor: expected an MXTensor of float8_e4m3fn or float4_e2m1fn_x2 in blocks of 32, got {tensor.elem_dtype} in "
            f"blocks of {tensor.block_size}"
        )
    return maker(codes, scales)


def _nvfp4(tensor, codes, scales):
    scale = tensor.per_tensor_scale
    return from_nvfp4(codes, scales, 1.0 if scale is None else scale)


def _float8(tensor, codes, scales):
    block = list(tensor.block_size or codes.shape)
    if len(block) != 3 or block[0] != 1 or block[1] != block[2]:
        raise ValueError(f"tensor: expected a Float8Tensor with blocks of 1 x B x B values, got blocks of {block}")
    return from_fp8(codes, scales, block[1])


_MAKERS = {"MXTensor": _mx, "NVFP4Tensor": _nvfp4, "Float8Tensor": _float8}


def from_torchao(tensor: torch.Tensor) -> QuantizedWeight:
    """A `QuantizedWeight` of a tensor [E, rows, columns] of torchao: an MXTensor, an NVFP4Tensor, or a Float8Tensor with square
    blocks. It keeps torchao's own memory; a view with exchanged dimensions gives one. Others, and swizzled scales, are refused.
    Raises ValueError that says why."""
    kind = type(tensor).__name__
    if kind not in _MAKERS:
        got = f"{list(tensor.shape)} of type {kind}" if isinstance(tensor, torch.Tensor) else described(tensor)
        raise ValueError(f"tensor: expected one of torchao's {', '.join(_MAKERS)}, got {got}{_REFUSED.get(kind, '')}")
    if getattr(tensor, "is_swizzled_scales", False):
        raise ValueError(
            f"tensor: expected scales in the order of the values, got {kind} with is_swizzled_scales=True; quantise it with "
            "is_swizzled_scales=False"
        )
    codes, scales, transposed = _stored(tensor)
    weight = _MAKERS[kind](tensor, codes, scales)
    return weight.transpose(1, 2) if transposed else weight
