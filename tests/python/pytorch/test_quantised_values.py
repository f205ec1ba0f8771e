"""quantize: how far its values are off, and where their scales lie."""

import pytest
import smlora
import torch
from quantised import OPTIONS, digest, random_weight

NF4_OF_RAMP = "44444444445555555556666666667777788899aaabbbccccddddeeeeeeefffff"
FP4_OF_RAMP = "bbbbbbaaaaaaaadddddccccffeeee99911166667744445555522222222333333"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPTIONS)
def test_values_come_back_to_within_a_step(device, name, dtype):
    values = torch.randn(3, 10, 96, dtype=torch.float64).to(device, dtype)
    encoding = name.removesuffix("_double")
    weight = smlora.quantize(values, encoding, **OPTIONS[name])
    assert weight.device == values.device and weight.encoding == encoding
    error = (weight.dequantize(torch.float32).double() - values.double()).norm() / values.double().norm()
    bounds = {"int8": 0.01, "fp8": 0.035, "mxfp8": 0.035, "nvfp4": 0.11, "nf4": 0.11, "nf4_double": 0.11, "int4": 0.13}
    assert 1e-4 < error < bounds.get(name, 0.14)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "int4"])
def test_values_that_the_encoding_has_come_back_unchanged(device, name):
    """But for roundings of the scale. int4 has values that no largest value of a group gives the scale of."""
    encoding = name.removesuffix("_double")
    once = random_weight(name, 2, 8, 64, device).dequantize(torch.float32)
    twice = smlora.quantize(once, encoding, **OPTIONS[name]).dequantize(torch.float32)
    exact = name in ("mxfp4", "mxfp8")
    torch.testing.assert_close(twice, once, rtol=0 if exact else 2e-2, atol=0 if exact else 2e-3)


@pytest.mark.parametrize("encoding", ["mxfp4", "mxfp8", "nvfp4"])
def test_powers_of_two_of_any_size_are_exact(device, encoding):
    values = torch.ones(1, 4, 32, device=device) * torch.tensor([2.0**-120, 1.0, -(2.0**120), 0.0], device=device).view(1, 4, 1)
    if encoding == "nvfp4":
        values = values.sign()
    weight = smlora.quantize(values, encoding)
    torch.testing.assert_close(weight.dequantize(torch.float32), values, rtol=1e-6, atol=0)


def test_codes_of_halves_go_to_the_even_neighbour():
    """e2m1 has 0, 1/2, 1, 3/2, 2, 3, 4 and 6; 6 sets the scale to 1."""
    values = torch.zeros(1, 1, 32)
    values[0, 0, :8] = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0])
    values[0, 0, 8:16] = -values[0, 0, :8]
    expected = torch.zeros(32)
    expected[:8] = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0])
    expected[8:16] = -expected[:8]
    assert torch.equal(smlora.quantize(values, "mxfp4").dequantize(torch.float32)[0, 0], expected)


@pytest.mark.parametrize("encoding", ["mxfp4", "mxfp8"])
def test_what_is_not_finite_becomes_not_a_number(encoding):
    values = torch.ones(1, 2, 64)
    values[0, 0, 3], values[0, 1, 40] = float("inf"), float("nan")
    nan = smlora.quantize(values, encoding).dequantize(torch.float32).isnan()
    assert nan[0, 0, :32].all() and nan[0, 1, 32:].all() and nan.sum() == 64


def test_blocks_that_straddle_experts_are_those_of_the_whole():
    """Pieces of whole blocks are quantised one after the other; a block may begin in one expert and end in the next."""
    values = torch.randn(3, 5, 33)
    weight = smlora.quantize(values, "nf4")
    blocks = torch.nn.functional.pad(values.flatten(), (0, -values.numel() % 64)).view(-1, 64)
    assert torch.equal(weight.scales, blocks.abs().amax(1))
    table = weight.table
    nearest = (blocks / weight.scales.unsqueeze(1)).unsqueeze(2).sub(table).abs().argmin(2).flatten()[: values.numel()]
    expected = table[nearest] * weight.scales.repeat_interleave(64)[: values.numel()]
    torch.testing.assert_close(weight.dequantize(torch.float32).flatten(), expected, rtol=0, atol=0)


def test_golden_codes_of_bitsandbytes():
    """What bitsandbytes 0.50.2 gives for these values, on a CPU."""
    ramp = torch.linspace(-1, 1, 64).view(1, 2, 32) * torch.tensor([1.0, 3.0]).view(1, 2, 1)
    nf4, fp4 = smlora.quantize(ramp, "nf4"), smlora.quantize(ramp, "fp4", block=32)
    assert bytes(nf4.codes.tolist()).hex() == NF4_OF_RAMP
    assert bytes(fp4.codes.tolist()).hex() == FP4_OF_RAMP
    assert nf4.scales.tolist() == [3.0] and fp4.scales.tolist() == [1.0, 3.0]


def test_parts_have_squares_and_scales_of_their_own():
    values = torch.randn(2, 6, 32)
    values[:, :3] *= 100
    for encoding, options in (("fp8", {"block": 2}), ("nvfp4", {})):
        both = smlora.quantize(values, encoding, parts=2, **options).dequantize(torch.float32)
        apart = [smlora.quantize(part.contiguous(), encoding, **options) for part in values.chunk(2, 1)]
        assert torch.equal(both, torch.cat([part.dequantize(torch.float32) for part in apart], 1))


def test_a_transposed_weight_is_quantised_as_it_is_stored():
    values = torch.randn(2, 8, 64)
    stored, view = smlora.quantize(values, "mxfp4"), smlora.quantize(values.transpose(1, 2), "mxfp4")
    assert view.shape == (2, 64, 8) and view.transposed and digest(view) == digest(stored)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_part_of_a_weight_is_quantised_as_its_copy(name):
    part = torch.randn(2, 16, 130)[:, ::2, 1:65]
    options = OPTIONS[name]
    got, expected = (smlora.quantize(values, name.removesuffix("_double"), **options) for values in (part, part.contiguous()))
    assert digest(got) == digest(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_default_type_may_be_another(name, dtype):
    values, encoding, options = torch.randn(2, 48, 96), name.removesuffix("_double"), OPTIONS[name]
    expected = smlora.quantize(values, encoding, **options)
    torch.set_default_dtype(dtype)
    try:
        weight = smlora.quantize(values, encoding, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    assert digest(weight) == digest(expected)


def test_the_default_device_may_be_another():
    with torch.device("meta"):
        weight = smlora.quantize(torch.empty(2, 4, 64), "nf4", double=True)
    assert weight.device.type == "meta" and weight.outer_table.shape == (256,)


WRONG_TO_QUANTIZE = [
    (dict(encoding="int3"), "encoding: expected one of nf4, .*got 'int3'"),
    (dict(weight=torch.zeros(4, 64)), r"weight: expected a tensor \[E, rows, columns\], got \[4, 64\]"),
    (dict(weight=torch.zeros(2, 4, 64, dtype=torch.int8)), "weight: expected bfloat16.*got torch.int8"),
    (dict(weight=torch.zeros(0, 4, 64)), r"weight: expected values, got \[0, 4, 64\]"),
    (dict(weight=torch.zeros(2, 4, 33)), "weight: expected a multiple of 32 columns for mxfp4, got 33"),
    (dict(block=64), "block: expected None for mxfp4, whose block is fixed, got 64"),
    (dict(double=True), "double: expected False for mxfp4"),
    (dict(double="yes", encoding="nf4"), "double: expected True or False"),
    (dict(parts=3), "parts: expected a divisor of rows = 4, got 3"),
    (dict(parts=0), "parts: expected 1 to 4, got 0"),
    (dict(encoding="nf4", block=48), "^block: expected a power of two from 32 to 4096 for nf4, got 48"),
    (dict(encoding="fp4", block=8192), "^block: expected a power of two from 32 to 4096 for fp4, got 8192"),
    (dict(encoding="fp8", block=0), "^block: expected 1 or more, got 0"),
    (dict(weight=torch.zeros(2, 4, 33), encoding="int4", block=3), "block: expected an even number for int4, got 3"),
    (dict(encoding="int4", block=48), "weight: expected a multiple of 48 columns for int4, got 64"),
]


@pytest.mark.parametrize("wrong, message", WRONG_TO_QUANTIZE)
def test_quantize_names_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        smlora.quantize(**dict(weight=torch.zeros(2, 4, 64), encoding="mxfp4") | wrong)
