"""Weights that bitsandbytes, torchao and compressed-tensors quantise themselves, where those are installed."""

import pytest
import smlora
import torch
from quantised import digest, same_bits


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")


@pytest.mark.parametrize("shape", [(3, 32, 64), (2, 6, 80), (2, 5, 33)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_codes_are_those_of_bitsandbytes(bitsandbytes, shape, dtype, quant_type):
    values = torch.randn(shape).to(dtype)
    values[0, 0] = 0
    for block in (64, 128):
        codes, state = bitsandbytes.functional.quantize_4bit(values, blocksize=block, quant_type=quant_type)
        theirs, ours = smlora.from_bnb(codes, state), smlora.quantize(values, quant_type, block=block)
        assert theirs.codes.data_ptr() == codes.data_ptr()
        # In a last block that is not whole bitsandbytes divides, elsewhere it multiplies with 1 / scale: halves between two
        # values of fp4 then go to either.
        whole = values.numel() // block * block // 2 if quant_type == "fp4" else codes.numel()
        assert torch.equal(ours.codes.view(-1)[:whole], theirs.codes.view(-1)[:whole])
        assert torch.equal(ours.scales, theirs.scales) and torch.equal(ours.table, theirs.table)


def test_scales_of_double_quantisation_are_within_a_step_of_bitsandbytes(bitsandbytes):
    """Its kernels search scales another way; the tables and offsets are the same."""
    values = torch.randn(3, 32, 64)
    codes, state = bitsandbytes.functional.quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
    theirs, ours = smlora.from_bnb(codes, state), smlora.quantize(values, "nf4", double=True)
    assert torch.equal(ours.outer_table, theirs.outer_table) and torch.equal(ours.outer_offset, theirs.outer_offset)
    assert torch.equal(ours.outer_scales, theirs.outer_scales) and torch.equal(ours.codes, theirs.codes.view(-1))
    assert (ours.scales.int() - theirs.scales.view(-1).int()).abs().max() <= 1


@pytest.mark.parametrize("double", [False, True])
def test_a_linear4bit_for_each_expert(bitsandbytes, double):
    linears = [bitsandbytes.nn.Linear4bit(64, 32, bias=False, quant_type="nf4", compress_statistics=double).to("cpu")
               for _ in range(3)]
    weight = smlora.from_bnb([linear.weight for linear in linears])
    expected = [bitsandbytes.functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state) for linear in linears]
    assert same_bits(weight.dequantize(torch.float32), torch.stack(expected).float())


@pytest.mark.parametrize("double", [False, True])
def test_a_parameter_that_was_replaced(bitsandbytes, double):
    parametrize = pytest.importorskip("bitsandbytes.nn.parametrize", reason="needs bitsandbytes")
    module = torch.nn.Module()
    module.experts = torch.nn.Parameter(torch.randn(3, 32, 64).bfloat16())
    parametrize.replace_parameter_4bit(module, "experts", compress_statistics=double, quant_type="nf4")
    p = module.parametrizations["experts"]
    weight = smlora.from_bnb(p.original, p[0].quant_state)
    assert weight.codes.data_ptr() == p.original.data_ptr()
    assert same_bits(weight.dequantize(torch.bfloat16), module.experts)


def test_storage_of_another_type_and_a_shape_that_is_told(bitsandbytes):
    values = torch.randn(3, 32, 64).bfloat16()
    param = bitsandbytes.nn.Params4bit(values.flatten(0, 1), requires_grad=False, quant_type="nf4",
                                       quant_storage=torch.bfloat16).to("cpu")
    assert param.dtype == torch.bfloat16
    weight = smlora.from_bnb(param, shape=values.shape)
    expected = bitsandbytes.functional.dequantize_4bit(param.data, param.quant_state).view(values.shape)
    assert weight.codes.data_ptr() == param.data_ptr() and same_bits(weight.dequantize(torch.bfloat16), expected)


def test_int8_rows(bitsandbytes):
    values = torch.randn(3, 32, 64).half()
    codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(values.flatten(0, 1))
    weight = smlora.from_bnb(codes, scales, shape=values.shape)
    assert digest(smlora.quantize(values, "int8")) == digest(weight)
    expected = bitsandbytes.functional.int8_vectorwise_dequant(codes, scales)
    assert torch.equal(weight.dequantize(torch.float32).flatten(0, 1), expected)
    param = bitsandbytes.nn.Int8Params(codes, requires_grad=False, CB=codes, SCB=scales)
    assert digest(smlora.from_bnb(param, shape=values.shape)) == digest(weight)


def test_mx_tensors_of_torchao():
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor", reason="needs torchao")
    values = torch.randn(3, 32, 64)
    for encoding, dtype in (("mxfp8", torch.float8_e4m3fn), ("mxfp4", torch.float4_e2m1fn_x2)):
        tensor = mx.MXTensor.to_mx(values, dtype, 32)
        weight = smlora.from_torchao(tensor)
        assert weight.encoding == encoding and weight.codes.data_ptr() == tensor.qdata.data_ptr()
        assert same_bits(weight.dequantize(torch.float32), tensor.dequantize(torch.float32))
        assert digest(smlora.quantize(values, encoding)) == digest(weight)
    with pytest.raises(ValueError, match="tensor: expected an MXTensor of float8_e4m3fn or .*got torch.float8_e5m2"):
        smlora.from_torchao(mx.MXTensor.to_mx(values, torch.float8_e5m2, 32))


@pytest.mark.parametrize("scale", [None, torch.tensor(0.01), "experts"])
def test_nvfp4_tensors_of_torchao(scale):
    nvfp4 = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor", reason="needs torchao")
    scale = torch.rand(3, 1, 1) * 0.01 + 0.001 if scale == "experts" else scale
    tensor = nvfp4.NVFP4Tensor.to_nvfp4(torch.randn(3, 32, 64).bfloat16(), 16, per_tensor_scale=scale)
    weight = smlora.from_torchao(tensor)
    assert weight.codes.data_ptr() == tensor.qdata.data_ptr()
    assert same_bits(weight.dequantize(torch.float32), tensor.dequantize(torch.float32))


def test_float8_tensors_of_torchao():
    quantization = pytest.importorskip("torchao.quantization", reason="needs torchao")
    granularity = pytest.importorskip("torchao.quantization.granularity", reason="needs torchao")
    tensor = quantization.Float8Tensor.from_hp(torch.randn(3, 32, 64), granularity=granularity.PerBlock([1, 16, 16]))
    weight = smlora.from_torchao(tensor)
    assert same_bits(weight.dequantize(torch.float32), tensor.dequantize(torch.float32))
    rows = quantization.Float8Tensor.from_hp(torch.randn(3, 32, 64), granularity=granularity.PerRow())
    with pytest.raises(ValueError, match=r"tensor: expected a Float8Tensor with blocks of .*got blocks of \[1, 1, 64\]"):
        smlora.from_torchao(rows)


class Torchao:
    """Tensors [3, 128, 64] that smlora cannot describe."""

    def __init__(self):
        self.quantization = pytest.importorskip("torchao.quantization", reason="needs torchao")
        self.values = torch.randn(3, 128, 64)

    def swizzled_mx(self):
        from torchao.prototype.mx_formats.mx_tensor import MXTensor

        return MXTensor.to_mx(self.values, torch.float8_e4m3fn, 32, is_swizzled_scales=True)

    def swizzled_nvfp4(self):
        from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

        return NVFP4Tensor.to_nvfp4(self.values.bfloat16(), is_swizzled_scales=True)

    def int8(self):
        return self.quantization.Int8Tensor.from_hp(self.values, granularity=self.quantization.PerRow())

    def int4(self):
        scales = torch.ones(3, 2, 128)
        codes = torch.zeros(3, 128, 32, dtype=torch.int8)
        return self.quantization.Int4Tensor(codes, scales, scales - 1, [1, 1, 32], self.values.shape)

    def intx(self):
        """Of a kind that smlora knows nothing about."""
        codes, scales = torch.zeros(3, 128, 64, dtype=torch.int8), torch.ones(3, 128, 1)
        return self.quantization.IntxUnpackedToInt8Tensor(codes, scales, scales - 1, torch.int4, (1, 1, 64), scales.dtype, None)


_KNOWN = r"^tensor: expected one of torchao's MXTensor, NVFP4Tensor, Float8Tensor, got \[3, 128, 64\] of type "
_IN_ORDER = "^tensor: expected scales in the order of the values, got {} with is_swizzled_scales=True; quantise it with "
REFUSED = {
    "swizzled_mx": _IN_ORDER.format("MXTensor") + "is_swizzled_scales=False",
    "swizzled_nvfp4": _IN_ORDER.format("NVFP4Tensor") + "is_swizzled_scales=False",
    "int8": f"{_KNOWN}Int8Tensor, whose scales are the steps themselves",
    "int4": f"{_KNOWN}Int4Tensor, whose groups have zero points",
    "intx": f"{_KNOWN}IntxUnpackedToInt8Tensor$",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_tensors_of_torchao_are_refused_by_name(name):
    tensor = getattr(Torchao(), name)()
    with pytest.raises(ValueError, match=REFUSED[name]):
        smlora.from_torchao(tensor)


@pytest.mark.parametrize("group", [32, 128])
def test_int4_of_compressed_tensors(group):
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="needs compressed-tensors")
    quantization = pytest.importorskip("compressed_tensors.quantization", reason="needs compressed-tensors")
    arguments = quantization.QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=group, symmetric=True)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=arguments)
    experts = []
    for values in torch.randn(3, 16, 256).bfloat16():
        scale = (values.float().unflatten(1, (-1, group)).abs().amax(2) / 7.5).bfloat16()
        experts.append(compressors.PackedQuantizationCompressor.compress({"weight": values, "weight_scale": scale}, scheme))
    weight = smlora.from_compressed_tensors(
        [expert["weight_packed"] for expert in experts], [expert["weight_scale"] for expert in experts],
        weight_shape=[expert["weight_shape"] for expert in experts]
    )
    expected = [compressors.PackedQuantizationCompressor.decompress(dict(expert), scheme)["weight"] for expert in experts]
    assert weight.block == group and same_bits(weight.dequantize(torch.bfloat16), torch.stack(expected))


def test_nvfp4_of_compressed_tensors_with_gate_and_up_apart():
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="needs compressed-tensors")
    quantization = pytest.importorskip("compressed_tensors.quantization", reason="needs compressed-tensors")
    arguments = quantization.QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True,
                                              dynamic=False)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=arguments)

    def compressed(values):
        divisor = (448 * 6 / values.abs().max()).reshape(1)
        scale = (divisor * values.unflatten(1, (-1, 16)).abs().amax(2) / 6).clamp(max=448).to(torch.float8_e4m3fn).float()
        state = {"weight": values, "weight_scale": scale, "weight_global_scale": divisor}
        return compressors.NVFP4PackedCompressor.compress(state, scheme)

    experts = [[compressed(torch.randn(16, 64)), compressed(10 * torch.randn(16, 64))] for _ in range(3)]
    packed, scale, divisor = ([[part[name] for part in expert] for expert in experts]
                              for name in ("weight_packed", "weight_scale", "weight_global_scale"))
    weight = smlora.from_compressed_tensors(packed, scale, weight_global_scale=divisor)
    assert weight.parts == 2 and weight.global_scale == "divisor" and weight.shape == (3, 32, 64)
    for e, expert in enumerate(experts):
        apart = [smlora.from_compressed_tensors([part["weight_packed"]], [part["weight_scale"]],
                                                weight_global_scale=part["weight_global_scale"]) for part in expert]
        expected = torch.cat([part.dequantize(torch.float32)[0] for part in apart])
        assert same_bits(weight.dequantize(torch.float32)[e], expected)
