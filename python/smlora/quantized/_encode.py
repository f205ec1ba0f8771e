"""Codes and scales of one expert's matrix [rows, columns] in fp32."""

import torch

_E2M1 = 6.0  # the largest value
_E4M3 = 448.0
_E4M3_LEAST = 2.0**-9
_E8M0 = getattr(torch, "float8_e8m0fnu", torch.uint8)


def _nonzero(scale):
    """1 in the place of 0: of values that are all zero."""
    return torch.where(scale == 0, 1.0, scale)


def pack(codes):
    """Two codes in a byte, the low nibble first."""
    return codes[..., ::2] | codes[..., 1::2] << 4


def _e2m1(values):
    """The nearest codes, of even mantissa where two are as near."""
    bounds = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], dtype=torch.float32, device=values.device)
    upper = torch.tensor([False, True, False, True, False, True, False], device=values.device)
    bounds = torch.where(upper, torch.nextafter(bounds, torch.zeros_like(bounds)), bounds)
    magnitudes = torch.bucketize(values.abs(), bounds, out_int32=True).to(torch.uint8)
    return magnitudes | torch.signbit(values).to(torch.uint8) << 3


def _e4m3(values):
    return values.clamp(-_E4M3, _E4M3).to(torch.float8_e4m3fn)


def _powers_of_two(blocks, exponent_of_largest):
    """(bytes of scales, values to be coded) of blocks [.., 32], whose scale is the power of two that gives its largest value
    this exponent (OCP Microscaling Formats, 6.3)."""
    largest = blocks.abs().amax(-1)
    exponent = torch.frexp(largest).exponent - 1 - exponent_of_largest
    byte = torch.where(largest == 0, 0, (exponent + 127).clamp(0, 254))
    byte = torch.where(largest.isfinite(), byte, 255)
    return byte.to(torch.uint8).view(_E8M0), torch.ldexp(blocks, (127 - byte).unsqueeze(-1))


def mxfp4(matrix, **_):
    scales, values = _powers_of_two(matrix.unflatten(1, (-1, 32)), 2)
    return {"codes": pack(_e2m1(values).flatten(1)), "scales": scales}


def mxfp8(matrix, **_):
    scales, values = _powers_of_two(matrix.unflatten(1, (-1, 32)), 8)
    return {"codes": _e4m3(values).flatten(1), "scales": scales}


def nvfp4(matrix, *, parts, **_):
    of_parts = _nonzero(matrix.reshape(parts, -1).abs().amax(1) / (_E2M1 * _E4M3))
    factor = of_parts.repeat_interleave(matrix.shape[0] // parts).view(-1, 1)
    blocks = matrix.unflatten(1, (-1, 16))
    scales = (blocks.abs().amax(2) / _E2M1 / factor).clamp(_E4M3_LEAST, _E4M3).to(torch.float8_e4m3fn)
    codes = _e2m1(blocks / (factor * scales.float()).unsqueeze(2))
    return {"codes": pack(codes.flatten(1)), "scales": scales, "global_scales": of_parts}


def fp8(matrix, *, block, parts, **_):
    rows, columns = matrix.shape[0] // parts, matrix.shape[1]
    padded = torch.nn.functional.pad(matrix.view(parts, rows, columns), (0, -columns % block, 0, -rows % block))
    squares = padded.unflatten(2, (-1, block)).unflatten(1, (-1, block))  # [parts, rows of squares, block, columns .., block]
    scales = _nonzero(squares.abs().amax((2, 4)) / _E4M3)
    codes = _e4m3(squares / scales[:, :, None, :, None]).flatten(3).flatten(1, 2)[:, :rows, :columns]
    return {"codes": codes.reshape(matrix.shape), "scales": scales.flatten(0, 1)}


def int8(matrix, **_):
    scales = matrix.abs().amax(1)
    return {"codes": (matrix * (127.0 / _nonzero(scales)).unsqueeze(1)).round().to(torch.int8), "scales": scales}


def int4(matrix, *, block, dtype, **_):
    groups = matrix.unflatten(1, (-1, block))
    scales = _nonzero((groups.abs().amax(2) / 7.5).to(dtype))
    codes = ((groups / scales.float().unsqueeze(2)).round().clamp(-8, 7) + 8).to(torch.uint8)
    return {"codes": pack(codes.flatten(1)), "scales": scales}


ENCODERS = {"mxfp4": mxfp4, "mxfp8": mxfp8, "nvfp4": nvfp4, "fp8": fp8, "int8": int8, "int4": int4}
