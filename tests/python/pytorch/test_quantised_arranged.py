"""Weights whose scales are arranged for products that decode codes while they multiply them."""

import pytest
import smlora
import torch
from quantised_layers import linear, trained
from reference import Layer


E, K, N = 5, 128, 256
OPTIONS = {"nvfp4": {"parts": 2}, "fp8": {"block": 64, "parts": 2}}


def weight_of(device, enk=True, encoding="mxfp4"):
    """[E, K, N], stored so or as [E, N, K]."""
    shape = (E, N, K) if enk else (E, K, N)
    weight = smlora.quantize(torch.randn(shape, device=device).bfloat16(), encoding, **OPTIONS.get(encoding, {}))
    return weight.transpose(1, 2) if enk else weight


encodings = pytest.mark.parametrize("encoding", ["mxfp4", "int4", "nf4", "fp4", "fp8", "mxfp8", "nvfp4"])
ARRANGED_TYPES = {"nf4": torch.float32, "fp4": torch.float32, "fp8": torch.float32, "nvfp4": torch.bfloat16}


@encodings
@pytest.mark.parametrize("enk", [True, False])
def test_values_and_codes_are_the_same(device, enk, encoding):
    weight = weight_of(device, enk, encoding)
    arranged = weight.arranged()
    assert arranged.is_arranged and not weight.is_arranged
    assert arranged.codes.data_ptr() == weight.codes.data_ptr() and arranged.shape == weight.shape
    assert arranged.scales.dim() == 4 and arranged.scales.dtype == ARRANGED_TYPES.get(encoding, weight.scales.dtype)
    assert arranged.outer_scales is None and arranged.outer_block == 0
    assert torch.equal(arranged.dequantize(torch.float32), weight.dequantize(torch.float32))
    assert arranged.check().arranged() is arranged


def test_each_scale_stands_where_the_documentation_says(device):
    weight = weight_of(device)
    given, arranged = (tensor.view(torch.uint8).cpu() for tensor in (weight.scales, weight.arranged().scales))
    rows, blocks = given.shape[1:]
    assert arranged.shape == (E, -(-weight.rows // 256) * 4, -(-weight.columns // 256) * 4, 128)
    matrices = arranged.unflatten(3, (64, 2)).transpose(2, 3).flatten(3).flatten(1, 2)
    assert torch.equal(matrices[:, :rows, :blocks], given)
    assert not matrices[:, rows:].any() and not matrices[:, :, blocks:].any()


@encodings
@pytest.mark.parametrize("enk", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_decoded_weight(device, enk, dtype, encoding):
    weight = weight_of(device, enk, encoding).arranged()
    layer = Layer(E=E, K=K, N=N, R=3, T=11, top_k=2, dtype=dtype, y_rows="token", left_out=True, device=device)
    results = []
    for operand in (weight, weight.dequantize(dtype)):
        y = linear(layer, operand)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), trained(layer))))
    for got, wanted in zip(*results):
        assert (got - wanted).float().norm() <= 1e-2 * wanted.float().norm()


@pytest.mark.parametrize("block", [32, 64])
def test_each_scale_of_int4_stands_where_the_documentation_says(device, block):
    weight = smlora.quantize(torch.randn(E, 70, 192, device=device).bfloat16(), "int4", block=block)
    given, arranged = weight.scales.view(torch.int16).cpu(), weight.arranged().scales.view(torch.int16).cpu()
    in_row = 64 // block
    assert arranged.shape == (E, 4, 4, 64 * in_row)
    matrices = arranged.unflatten(3, (in_row, 64)).permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)
    assert torch.equal(matrices[:, :70, : 192 // block], given)
    assert not matrices[:, 70:].any() and not matrices[:, :, 192 // block :].any()


@encodings
def test_experts_are_cut_out_of_it(device, encoding):
    arranged = weight_of(device, encoding=encoding).arranged()
    cut = arranged[1:3]
    assert cut.is_arranged and torch.equal(cut.dequantize(torch.float32), arranged.dequantize(torch.float32)[1:3])


def test_what_cannot_be_arranged_is_refused(device):
    with pytest.raises(ValueError, match="weight.encoding: expected one of nf4, fp4, mxfp4, fp8, mxfp8, nvfp4, int4, got 'int8'"):
        weight_of(device, encoding="int8").arranged()
    with pytest.raises(ValueError, match="scales: expected bf16, got fp32"):
        smlora.quantize(torch.randn(E, N, K, device=device), "int4").arranged()
    with pytest.raises(ValueError, match="block: expected a multiple of 64 to arrange scales of fp4, got 32"):
        smlora.quantize(torch.randn(E, N, K, device=device), "fp4", block=32).arranged()
    weight = weight_of(device)
    scales = weight.scales.view(torch.uint8).clone()
    scales[0, 0, 0] = 129
    large = smlora.from_mxfp4(weight.codes, scales.view(weight.scales.dtype))
    with pytest.raises(ValueError, match="scales: expected 128 or less each, got 129"):
        large.arranged()
