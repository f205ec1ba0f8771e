#!/usr/bin/env python3
"""Writes the golden vectors: quantised weights, and what the library that made them decodes them to.

    make_golden.py [FOLDER]         as files in a folder instead of golden.tar.xz

README.md says which libraries it needs and what index.json holds. The same versions write the same bytes."""

import importlib.metadata
import json
import pathlib
import sys
import tempfile

import archive
import torch
from bitsandbytes import functional as bnb
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from compressed_tensors.compressors import NVFP4PackedCompressor, PackedQuantizationCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from safetensors.torch import save_file
from torchao.prototype.mx_formats.mx_tensor import to_dtype
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, _dequantize_fp8_weight
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
LIBRARIES = ("torch", "transformers", "bitsandbytes", "compressed-tensors", "torchao", "safetensors")
VERSIONS = {name: importlib.metadata.version(name) for name in LIBRARIES}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
# Scales at which decoding can go wrong: subnormal, overflowing, zero, and with all mantissa bits in use.
EXTREME = torch.tensor(
    [1.0, 2.0**-126, 1e-40, 1.17e-38, 3e38, 1e30, 0.0, 2.0**-20, 3.1415927e-3, 0.0999999, 2.0**100, 7e-42])
INDEX = []


def write(file, decoded_by, formula, encoding, shape, block, tensors, **attributes):
    """Writes a file and its entry of the index. tensors: role -> (name in the file, tensor)."""
    path = FOLDER / f"{file}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.values()}, path)
    path.chmod(0o644)
    INDEX.append({
        "file": path.name, "decoded_by": decoded_by, "formula": formula, "encoding": encoding,
        "shape": list(shape), "block": block, "parts": 1, **attributes,
        "tensors": {role: name for role, (name, _) in tensors.items()}})


def outputs(names, decode):
    """The expected tensors: decode(dtype) for each of the output types named."""
    return {name: (name, decode(DTYPES[name])) for name in names}


def same_bits(a, b):
    """Whether two fp32 tensors have equal bits. NaNs are equal whatever their payload."""
    return bool(((a.view(torch.int32) == b.view(torch.int32)) | (a.isnan() & b.isnan())).all())


def shuffled(codes, count):
    """`count` codes in which each run of `codes` values holds every code once, in random order."""
    return torch.cat([torch.randperm(codes) for _ in range(-(-count // codes))])[:count].to(torch.uint8)


def low_first(codes):
    """Packs codes of 4 bits along the last axis, the first of two into the low nibble."""
    return codes[..., 0::2] | codes[..., 1::2] << 4


# ---- bitsandbytes ----------------------------------------------------------------------------------------------------


def bnb_4bit(file, kind, shape, block, names, *, double=False, scales=None):
    """nf4 and fp4, decoded by bitsandbytes' implementation in PyTorch: the CPU kernel before it has faults on some
    processors, see README.md."""
    count = torch.Size(shape).numel()
    weight = torch.randn(shape) * torch.exp(torch.randn(shape[0], shape[1], 1))
    packed, state = bnb.quantize_4bit(weight, blocksize=block, quant_type=kind, compress_statistics=double)
    codes = torch.full((packed.numel() * 2,), 15, dtype=torch.uint8)  # also in the nibble that an odd count leaves
    codes[:count] = shuffled(16, count)
    packed = (codes[0::2] << 4 | codes[1::2]).reshape(packed.shape)

    absmax = state.absmax
    formula = "table[code] * s"
    tensors = {"codes": ("packed", packed), "table": ("code", state.code)}
    attributes = {}
    if double:
        second = state.state2
        state.absmax = shuffled(256, absmax.numel())
        absmax = bnb.dequantize_blockwise(state.absmax, second) + state.offset
        formula += ", s = double.table[scale] * double.scales + double.offset"
        attributes["double_block"] = second.blocksize
        tensors |= {"scales": ("absmax", state.absmax), "double.scales": ("absmax2", second.absmax),
                    "double.table": ("code2", second.code), "double.offset": ("offset", state.offset.reshape(1)),
                    "decoded_scales": ("absmax_decoded", absmax)}
    else:
        if scales is not None:
            absmax = torch.cat([scales, absmax])[:absmax.numel()]
        tensors["scales"] = ("absmax", absmax)
    tensors |= outputs(names, lambda dtype: _dequantize_4bit_compute(
        packed.flatten(), absmax, state.code, block, shape, dtype))
    write(file, "bitsandbytes.backends.default.ops._dequantize_4bit_compute", formula, kind, shape, block, tensors,
          **attributes)


def bnb_4bit_files():
    for kind in ("nf4", "fp4"):
        bnb_4bit(f"{kind}_b64", kind, (2, 3, 128), 64, ("f32", "bf16", "f16"), scales=EXTREME)
        bnb_4bit(f"{kind}_b32", kind, (2, 3, 64), 32, ("f32", "bf16"), scales=EXTREME.flip(0))
        bnb_4bit(f"{kind}_b128", kind, (2, 2, 128), 128, ("f32", "bf16"))
        bnb_4bit(f"{kind}_b64_double", kind, (2, 3, 64), 64, ("f32", "bf16"), double=True)
        # Blocks run over the ends of rows and experts, and the last one is not full.
        for shape in ((1, 3, 33), (2, 3, 80)):
            bnb_4bit(f"{kind}_ragged_{shape[2]}", kind, shape, 64, ("f32", "bf16"))
    bnb_4bit("nf4_ragged_96", "nf4", (2, 3, 96), 64, ("f32", "bf16"))
    bnb_4bit("nf4_ragged_7", "nf4", (3, 5, 7), 64, ("f32", "bf16"))
    bnb_4bit("fp4_b128_double", "fp4", (2, 2, 128), 128, ("f32", "bf16"), double=True)
    # 4224 values: a full block and one that is not.
    bnb_4bit("nf4_b4096", "nf4", (2, 33, 64), 4096, ("bf16",))
    # 258 blocks: every scale byte, and more than the 256 that share a scale of scales.
    bnb_4bit("nf4_b32_double_258_blocks", "nf4", (2, 129, 32), 32, ("bf16",), double=True)


def int8(file, shape, scales):
    E, rows, columns = shape
    codes = torch.stack([shuffled(256, columns) for _ in range(E * rows)]).view(torch.int8)
    write(file, "bitsandbytes.functional.int8_vectorwise_dequant",
          "(code * s) * fp32(1 / row_divisor)", "int8", shape, columns,
          {"codes": ("weight", codes.reshape(shape)), "scales": ("row_stats", scales.reshape(E, rows)),
           "f32": ("f32", bnb.int8_vectorwise_dequant(codes, scales).reshape(shape))}, row_divisor=127)


def int8_torchao(file, shape, scales):
    E, rows, columns = shape
    codes = torch.stack([shuffled(256, columns) for _ in range(E * rows)]).view(torch.int8).reshape(shape)
    scales = scales.reshape(E, rows)
    tensor = Int8Tensor(codes, scales.unsqueeze(-1), [1, 1, columns], torch.bfloat16)
    write(file, "torchao Int8Tensor.dequantize", "(code * s) * fp32(1 / row_divisor)", "int8", shape, columns,
          {"codes": ("qdata", codes), "scales": ("scale", scales), **outputs(("f32", "bf16"), tensor.dequantize)},
          row_divisor=1)


def int8_files():
    int8("int8_rows", (2, 4, 256), EXTREME[[0, 2, 3, 4, 6, 8, 9, 11]])
    int8("int8_ragged_33", (2, 3, 33), torch.rand(6))
    int8("int8_ragged_7", (1, 3, 7), torch.rand(3))
    int8_torchao("int8_torchao", (2, 3, 33), torch.rand(6))


# ---- OCP microscaling ------------------------------------------------------------------------------------------------


def dequantize_at_load(weight, scales, dtype):
    """What Transformers does when it loads a checkpoint with dequantize=True. It takes the block from the shapes."""
    return Fp8Dequantize(None)._dequantize_one(weight, scales, dtype)


def every_scale_byte():
    """Codes [1, 256, 32] and scale bytes [1, 256, 1]: row s has the scale byte s and every code in both nibbles."""
    pair = torch.arange(16, dtype=torch.uint8)
    codes = torch.stack([pair, 15 - pair], -1).flatten()
    return codes.expand(1, 256, 32), torch.arange(256, dtype=torch.uint8).reshape(1, 256, 1)


def mxfp4_gpt_oss(file, codes, scales, names):
    blocks = low_first(codes).unflatten(-1, (-1, 16))
    write(file, "transformers.integrations.mxfp4.convert_moe_packed_tensors", "e2m1[code] * 2^(scale - 127)", "mxfp4",
          codes.shape, 32, {
              "codes": ("gate_up_proj_blocks", blocks), "scales": ("gate_up_proj_scales", scales),
              # Its output is [E, K, N].
              **outputs(names, lambda dtype: convert_moe_packed_tensors(blocks, scales, dtype=dtype).transpose(1, 2))})


def mxfp4_deepseek_v4(file, codes, scales, names):
    packed, scales = low_first(codes).view(torch.int8), scales.view(torch.float8_e8m0fnu)
    write(file, "transformers.integrations.finegrained_fp8.Fp8Dequantize", "e2m1[code] * 2^(scale - 127)", "mxfp4",
          codes.shape, 32, {
              "codes": ("weight", packed), "scales": ("scale", scales),
              **outputs(names, lambda dtype: dequantize_at_load(packed, scales, dtype))})


def mxfp4_files():
    mxfp4_gpt_oss("mxfp4_uint8_all", *every_scale_byte(), ("f32",))
    mxfp4_deepseek_v4("mxfp4_e8m0_all", *every_scale_byte(), ("bf16",))
    # Each of the 48 scales from fp16's smallest subnormal to its overflow.
    mxfp4_gpt_oss("mxfp4_gpt_oss", shuffled(16, 1536).reshape(2, 6, 128),
                  (98 + shuffled(48, 48)).reshape(2, 6, 4), ("bf16", "f16"))
    mxfp4_deepseek_v4("mxfp4_deepseek_v4", shuffled(16, 576).reshape(2, 3, 96),
                      (110 + shuffled(18, 18)).reshape(2, 3, 3), ("f32", "bf16"))


def every_code_a_row(scale_bytes):
    """e4m3 [2, rows, 256] in which every row has all codes, and scale bytes [2, rows, 8], one for each row."""
    scales = torch.tensor(scale_bytes, dtype=torch.uint8).reshape(2, -1, 1)
    codes = shuffled(256, 256 * len(scale_bytes)).reshape(2, -1, 256)
    return codes.view(torch.float8_e4m3fn), scales.expand(-1, -1, 8)


def mxfp8_files():
    codes, scales = every_code_a_row([0, 1, 2, 3, 64, *range(120, 135), 252, 253, 254, 255])
    formula = "e4m3[code] * fp32(2^(scale - 127))"
    write("mxfp8_uint8", "transformers.integrations.finegrained_fp8.Fp8Dequantize", formula, "mxfp8", codes.shape, 32, {
        "codes": ("weight", codes), "scales": ("weight_scale_inv", scales),
        **outputs(("bf16",), lambda dtype: dequantize_at_load(codes, scales, dtype))})
    codes, scales = every_code_a_row([0, 1, 2, 127, 140, 253, 254, 255])
    scales = scales.contiguous().view(torch.float8_e8m0fnu)
    write("mxfp8_e8m0", "torchao.prototype.mx_formats.mx_tensor.to_dtype", formula, "mxfp8", codes.shape, 32, {
        "codes": ("qdata", codes), "scales": ("scale", scales),
        **outputs(("f32",), lambda dtype: to_dtype(codes, scales, torch.float8_e4m3fn, 32, dtype))})


# ---- FP8 with a scale for each square --------------------------------------------------------------------------------


def decode_fp8(weight, scales, block, parts, dtype):
    """Decodes square by square, because Transformers divides ragged weights into wrong squares: it has only the shapes
    to go by. Its function for the backward pass knows the block, and gives the same fp32."""
    def squares(matrix, matrix_scales):
        rows = [torch.cat([dequantize_at_load(square, matrix_scales[i:i + 1, j:j + 1], dtype)
                           for j, square in enumerate(band.split(block, 1))], 1)
                for i, band in enumerate(matrix.split(block, 0))]
        return torch.cat(rows)

    matrices = [(matrix, matrix_scales) for expert, expert_scales in zip(weight, scales, strict=True)
                for matrix, matrix_scales in zip(expert.chunk(parts), expert_scales.chunk(parts), strict=True)]
    if dtype == torch.float32 and scales.dtype == torch.float32:
        for matrix, matrix_scales in matrices:
            assert same_bits(squares(matrix, matrix_scales),
                             _dequantize_fp8_weight(matrix, matrix_scales, [block, block], dtype))
    return torch.stack([squares(*matrix) for matrix in matrices]).reshape(weight.shape)


def fp8(file, weight, scales, block, parts=1):
    write(file, "transformers.integrations.finegrained_fp8.Fp8Dequantize", "e4m3[code] * s", "fp8", weight.shape, block,
          {"codes": ("weight", weight), "scales": ("weight_scale_inv", scales),
           **outputs(("f32", "bf16"), lambda dtype: decode_fp8(weight, scales, block, parts, dtype))}, parts=parts)


def every_code_a_square(E):
    """e4m3 [E, 2, 256] in which each square of 128 columns has all codes."""
    squares = shuffled(256, 512 * E).reshape(E, 2, 2, 128)
    return squares.transpose(1, 2).reshape(E, 2, 256).view(torch.float8_e4m3fn)


def fp8_files():
    scales = torch.tensor(
        [1.0, 2.0**-126, 1e-40, 3e38, 0.0, torch.inf, torch.nan, 2.0**-133, 1 / 448, 7.3421e-4]).reshape(5, 1, 2)
    fp8("fp8_all_codes", every_code_a_square(5), scales, 128)
    fp8("fp8_bf16_scales", every_code_a_square(1), scales[4:].bfloat16(), 128)
    e8m0 = torch.tensor([0, 121, 254, 255], dtype=torch.uint8).view(torch.float8_e8m0fnu).reshape(2, 1, 2)
    fp8("fp8_e8m0_scales", every_code_a_square(2), e8m0, 128)

    def finite(*shape):
        return (torch.randint(0, 127, shape) + 128 * torch.randint(0, 2, shape)).byte().view(torch.float8_e4m3fn)

    def random_scales(*shape):
        return torch.exp(torch.randn(shape)) * 1e-3

    fp8("fp8_ragged_rows", finite(1, 130, 4), random_scales(1, 2, 1), 128)
    fp8("fp8_ragged_columns", finite(1, 4, 130), random_scales(1, 1, 2), 128)
    # Gate and up have 12 rows each: a full square and half of one, twice.
    fp8("fp8_ragged_parts", finite(2, 24, 12), random_scales(2, 4, 2), 8, parts=2)


# ---- NVFP4 -----------------------------------------------------------------------------------------------------------


def nvfp4_torchao(file, codes, scales, factors, names):
    """factors: fp32 [E], a scale for each expert."""
    packed, scales = low_first(codes), scales.view(torch.float8_e4m3fn)
    tensor = NVFP4Tensor(packed, scales, 16, torch.bfloat16, factors.reshape(-1, 1, 1))
    write(file, "torchao NVFP4Tensor.dequantize", "e2m1[code] * s, s = global * e4m3[scale]", "nvfp4", codes.shape, 16,
          {"codes": ("qdata", packed), "scales": ("scale", scales),
           "global_scales": ("per_tensor_scale", factors.reshape(-1, 1)), **outputs(names, tensor.dequantize)},
          global_scale="factor")


def nvfp4_compressed_tensors(file, codes, scales, divisors, names):
    """divisors: fp32 [E, parts]. The library decodes a part of an expert at a time. Its compressor gives bf16; fp32
    comes from the function to which the compressor hands the codes' values."""
    packed, scales = low_first(codes), scales.view(torch.float8_e4m3fn)
    E, parts = divisors.shape
    arguments = QuantizationArgs(
        num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True, dynamic=False)
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)

    def decode_part(packed, scales, divisor, dtype):
        if dtype == torch.bfloat16:
            return NVFP4PackedCompressor.decompress(
                {"weight_packed": packed, "weight_scale": scales, "weight_global_scale": divisor}, scheme)["weight"]
        values = unpack_fp4_from_uint8(packed, len(packed), 2 * packed.shape[-1], dtype)
        return dequantize(values, scales.float(), args=arguments, dtype=dtype, global_scale=divisor)

    def decode(dtype):
        values = [decode_part(*part, dtype) for part in zip(
            packed.reshape(E * parts, -1, packed.shape[-1]), scales.reshape(E * parts, -1, scales.shape[-1]),
            divisors.reshape(E * parts, 1), strict=True)]
        return torch.cat(values).reshape(codes.shape)

    write(file, "compressed_tensors NVFP4PackedCompressor.decompress", "e2m1[code] * s, s = e4m3[scale] / global",
          "nvfp4", codes.shape, 16,
          {"codes": ("weight_packed", packed), "scales": ("weight_scale", scales),
           "global_scales": ("weight_global_scale", divisors), **outputs(names, decode)},
          global_scale="divisor", parts=parts)


def nvfp4_files():
    factors = torch.tensor([1.0, 2.9516e-5, 0.7853982, 1.3e-38])  # the last one makes subnormal results
    codes = torch.arange(16, dtype=torch.uint8).expand(4, 256, 16)
    scales = torch.arange(256, dtype=torch.uint8).reshape(1, 256, 1).repeat(4, 1, 1)
    nvfp4_torchao("nvfp4_torchao_all", codes, scales, factors, ("f32",))
    nvfp4_compressed_tensors("nvfp4_compressed_tensors_all", codes, scales, 1 / factors.reshape(4, 1), ("bf16",))
    # In bf16 the order of the operations makes no difference: that takes fp32. Scales here are finite and not zero.
    scales = torch.cat([1 + shuffled(126, 64), 1 + shuffled(126, 64)]).reshape(2, 64, 1)
    nvfp4_compressed_tensors("nvfp4_compressed_tensors_f32", shuffled(16, 2048).reshape(2, 64, 16), scales,
                             1 / factors.reshape(2, 2), ("f32",))
    codes, scales = shuffled(16, 384).reshape(2, 3, 64), (1 + shuffled(126, 24)).reshape(2, 3, 4)
    nvfp4_torchao("nvfp4_torchao", codes, scales, factors[1:3], ("f32", "bf16"))
    codes, scales = shuffled(16, 256).reshape(2, 4, 32), (1 + shuffled(126, 16)).reshape(2, 4, 2)
    nvfp4_compressed_tensors("nvfp4_compressed_tensors_parts", codes, scales, torch.tensor(
        [[13440.0, 9123.7], [2.71828, 33880.25]]), ("f32", "bf16"))


# ---- INT4 ------------------------------------------------------------------------------------------------------------


def int4(file, shape, group, scales, name):
    """compressed-tensors decodes to the type of the scales. It takes an expert at a time."""
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(
        num_bits=4, type="int", strategy="group", group_size=group, symmetric=True, dynamic=False))
    values = shuffled(16, torch.Size(shape).numel()).reshape(shape).to(torch.int8) - 8
    packed = torch.stack([pack_to_int32(expert, 4) for expert in values])
    scales = scales.reshape(*shape[:2], shape[2] // group).to(DTYPES[name])
    decoded = torch.stack([
        PackedQuantizationCompressor.decompress(
            {"weight_packed": codes, "weight_scale": s, "weight_shape": torch.tensor(shape[1:])}, scheme)["weight"]
        for codes, s in zip(packed, scales, strict=True)])
    assert decoded.dtype == scales.dtype
    write(file, "compressed_tensors PackedQuantizationCompressor.decompress",
          "(code - 8) * s, rounded to the type of s", "int4", shape, group,
          {"codes": ("weight_packed", packed), "scales": ("weight_scale", scales), name: (name, decoded)})


def int4_files():
    for name in ("bf16", "f16", "f32"):
        int4(f"int4_g32_{name}", (2, 2, 128), 32, torch.cat([EXTREME, torch.exp(torch.randn(4) - 5)]), name)
        int4(f"int4_g128_{name}", (2, 2, 256), 128, torch.exp(3 * torch.randn(8) - 5), name)
    int4("int4_ragged_96", (2, 3, 96), 32, torch.exp(torch.randn(18) - 5), "bf16")


def main():
    torch.compiler.set_stance("force_eager")  # bitsandbytes would compile its decoder: the bits are to be PyTorch's
    FOLDER.mkdir(parents=True, exist_ok=True)
    for make in (bnb_4bit_files, int8_files, mxfp4_files, mxfp8_files, fp8_files, nvfp4_files, int4_files):
        torch.manual_seed(0)
        make()
    lines = ",\n".join(json.dumps(entry) for entry in INDEX)
    (FOLDER / "index.json").write_text(f'{{"versions": {json.dumps(VERSIONS)},\n"files": [\n{lines}\n]}}\n')
    size = sum(path.stat().st_size for path in FOLDER.glob("*.safetensors"))
    print(f"{len(INDEX)} files, {size} bytes")
    if len(sys.argv) == 1:
        archive.write(FOLDER)


if __name__ == "__main__":
    main()
