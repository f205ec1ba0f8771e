"""QuantizedWeight: its constructors, and what it is for torch."""

import pytest
import smlora
import torch
from quantised import OPTIONS, VALUES, QuantState, digest, golden_entries, golden_weight, random_weight, read_golden, same_bits
from torch.library import opcheck
from torch.utils import _pytree as pytree


# ---- golden vectors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", golden_entries(), ids=lambda entry: entry["file"].partition(".")[0])
def test_decodes_to_the_bits_of_the_library_behind_the_format(device, entry):
    roles = read_golden(entry, device)
    weight = golden_weight(entry, roles)
    assert weight.encoding == entry["encoding"] and list(weight.shape) == entry["shape"]
    assert weight.codes.data_ptr() == roles["codes"].data_ptr()
    names = [name for name in VALUES if name in roles]
    assert names
    for name in names:
        assert same_bits(smlora.dequantize(weight, VALUES[name]), roles[name]), name
        assert same_bits(weight.transpose(1, 2).dequantize(VALUES[name]), roles[name].transpose(1, 2)), name


def test_golden_vectors_have_every_encoding():
    assert {entry["encoding"] for entry in golden_entries()} == {name.removesuffix("_double") for name in OPTIONS}


# ---- constructors -----------------------------------------------------------------------------------------------------


def first_golden(encoding, **wanted):
    for entry in golden_entries():
        if entry["encoding"] == encoding and all(entry.get(key) == value for key, value in wanted.items()):
            return entry, read_golden(entry)
    raise AssertionError(f"no golden {encoding} with {wanted}")


def test_lists_of_experts_are_stacked():
    entry, roles = first_golden("mxfp4")
    whole = golden_weight(entry, roles)
    listed = smlora.from_mxfp4(list(roles["codes"]), list(roles["scales"]))
    assert digest(listed) == digest(whole) and listed.format == whole.format


def test_parts_of_experts_are_joined():
    entry, roles = first_golden("nvfp4", parts=2)
    whole = golden_weight(entry, roles)
    halves = {name: [list(expert.chunk(2)) for expert in roles[name]] for name in ("codes", "scales")}
    scales = [[scale.reshape(()) for scale in expert] for expert in roles["global_scales"]]
    divisor = entry["global_scale"] == "divisor"
    joined = smlora.from_nvfp4(halves["codes"], halves["scales"], scales, divisor)
    assert joined.parts == 2 and digest(joined) == digest(whole)
    with pytest.raises(ValueError, match="parts: expected 2, as many as each expert has tensors, got 3"):
        smlora.from_nvfp4(halves["codes"], halves["scales"], scales, divisor, parts=3)


@pytest.mark.parametrize("scale", [0.5, torch.tensor(0.5), torch.tensor([0.5]), "E", "E11", "parts"])
def test_global_scales_for_all_for_experts_and_for_parts(scale):
    weight = random_weight("nvfp4", 3, 4, 32)
    full = {"E": torch.full((3,), 0.5), "E11": torch.full((3, 1, 1), 0.5), "parts": torch.full((3, 2), 0.5)}
    scale = full[scale] if isinstance(scale, str) else scale
    made = smlora.from_nvfp4(weight.codes, weight.scales, scale, parts=2)
    expected = smlora.from_nvfp4(weight.codes, weight.scales, full["parts"], parts=2)
    assert made.global_scales.shape == (3, 2)
    assert same_bits(made.dequantize(torch.float32), expected.dequantize(torch.float32))


def test_experts_of_bitsandbytes_are_stacked():
    experts = [random_weight(name, 1, 8, 64) for name in ("nf4", "nf4", "nf4")]
    states = [QuantState("nf4", torch.Size((8, 64)), 64, expert.scales, expert.table) for expert in experts]
    stacked = smlora.from_bnb([expert.codes for expert in experts], states)
    expected = torch.cat([expert.dequantize(torch.float32) for expert in experts])
    assert same_bits(stacked.dequantize(torch.float32), expected)


def test_experts_whose_scales_are_quantised_are_stacked_with_plain_scales():
    experts = [random_weight("nf4_double", 1, 8, 64) for _ in range(3)]
    states = []
    for expert in experts:
        inner = QuantState(None, None, expert.outer_block, expert.outer_scales, expert.outer_table)
        states.append(QuantState("nf4", torch.Size((8, 64)), 64, expert.scales, expert.table, inner, expert.outer_offset))
    stacked = smlora.from_bnb([expert.codes for expert in experts], states)
    assert stacked.scales.dtype == torch.float32 and stacked.outer_scales is None
    expected = torch.cat([expert.dequantize(torch.float32) for expert in experts])
    assert same_bits(stacked.dequantize(torch.float32), expected)


def test_codes_in_storage_of_another_type():
    weight = random_weight("nf4", 2, 8, 64)
    state = QuantState("nf4", weight.shape, 64, weight.scales, weight.table)
    made = smlora.from_bnb(weight.codes.view(torch.bfloat16), state)
    assert made.codes.data_ptr() == weight.codes.data_ptr() and digest(made) == digest(weight)


def test_a_shape_that_the_state_does_not_have():
    weight = random_weight("nf4", 2, 8, 64)
    state = QuantState("nf4", torch.Size((16, 64)), 64, weight.scales, weight.table)
    with pytest.raises(ValueError, match=r"shape: expected \[E, rows, columns\], which the weight .*got \[16, 64\]"):
        smlora.from_bnb(weight.codes, state)
    assert digest(smlora.from_bnb(weight.codes, state, shape=(2, 8, 64))) == digest(weight)
    parameter = torch.nn.Parameter(weight.codes, requires_grad=False)
    parameter.quant_state, parameter._original_shape = state, torch.Size((2, 8, 64))
    assert digest(smlora.from_bnb(parameter)) == digest(weight)


@pytest.mark.parametrize("shape", [
    None, (8, 64), torch.tensor([8, 64]), torch.tensor([[8, 64]] * 3), [torch.tensor([8, 64])] * 3, [[8, 64]] * 3,
    [[torch.tensor([2, 64]), torch.tensor([6, 64])]] * 3, torch.tensor([[[2, 64], [6, 64]]] * 3),
])
def test_shapes_of_compressed_tensors(shape):
    weight = random_weight("int4", 3, 8, 64)
    codes = [[expert[:4], expert[4:]] for expert in weight.codes]
    made = smlora.from_compressed_tensors(codes, weight.scales, weight_shape=shape)
    assert made.parts == 2 and digest(made) == digest(weight)


MXFP4 = random_weight("mxfp4", 2, 4, 64)
FP8 = random_weight("fp8", 2, 6, 64)
NF4 = random_weight("nf4", 2, 8, 64)
INT4 = random_weight("int4", 2, 4, 64)
NVFP4 = random_weight("nvfp4", 2, 4, 64)
STATE = QuantState("nf4", NF4.shape, 64, NF4.scales, NF4.table)

WRONG_SHAPES = [
    ([5, 64], r"^weight_shape: expected 4 rows, as weight_packed has, and 64 columns for expert 0, got \[5, 64\]"),
    ([torch.tensor([4, 64]), torch.tensor([3, 64])], r"^weight_shape: expected 4 rows, .* for expert 1, got \[3, 64\]"),
    ([torch.tensor([4, 64]), torch.tensor([4, 62])], r"^weight_shape: .* rows, .* 64 columns for expert 1, got \[4, 62\]"),
    ([[2, 64]] * 4, "^weight_shape: expected 1 or 2 pairs of rows and columns, got 4"),
    ([4, 32], r"^weight_shape: expected 63 to 64 columns, which weight_packed \[2, 4, 32\] holds, got 32"),
    ([4, 66], "^weight_shape: expected 63 to 64 columns"),
    ([4], r"^weight_shape: expected \[rows, columns\] of one matrix or of each, got \[4\] of type list"),
    ([], r"^weight_shape: expected \[rows, columns\]"),
    (torch.tensor([4.0, 64.0]), "^weight_shape: expected a whole number, got 4.0 of type float"),
    ([4, 64.5], "^weight_shape: expected a whole number, got 64.5 of type float"),
]
"""Of INT4, and what is said of weight_shape."""

WRONG = [
    (lambda: smlora.from_compressed_tensors(NVFP4.codes, NVFP4.scales, weight_global_scale=torch.ones(1), weight_shape=[5, 64]),
     r"^weight_shape: expected 4 rows, as weight_packed has, and 64 columns for expert 0, got \[5, 64\]"),
    (lambda: smlora.from_compressed_tensors(NVFP4.codes, NVFP4.scales[:, :, :1], weight_global_scale=torch.ones(1)),
     r"^weight_scale: expected \[E, rows, columns / block\] = \[2, 4, 4\], got \[2, 4, 1\]"),
    (lambda: smlora.from_compressed_tensors(NVFP4.codes[0], NVFP4.scales, weight_global_scale=torch.ones(1)),
     r"^weight_packed: expected a tensor \[E, rows, columns / 2\], got \[4, 32\]"),
    (lambda: smlora.from_bnb(NF4.codes, QuantState("nf4", NF4.shape, 64, NF4.scales[:2], NF4.table)),
     r"^quant_state.absmax: expected .* = 16"),
    (lambda: smlora.Problem(2, 64, 6, 0, 1, weight_layout="enk", weights=NVFP4),
     r"^weights: expected \[E, N, K\] = \[2, 6, 64\], as the weight_layout is enk, got \[2, 4, 64\]"),
    (lambda: smlora.Problem(2, 64, 4, 0, 1, weights=NVFP4),
     r"^weights: expected \[E, K, N\] = \[2, 64, 4\], as the weight_layout is ekn, got \[2, 4, 64\]"),
    (lambda: smlora.from_mxfp4(MXFP4.codes, MXFP4.scales[:, :, :1]),
     r"^scales: expected \[E, rows, columns / block\] = \[2, 4, 2\], got \[2, 4, 1\]"),
    (lambda: smlora.from_mxfp4(MXFP4.codes.float(), MXFP4.scales), "^blocks: expected uint8 or int8, got fp32"),
    (lambda: smlora.from_mxfp4(MXFP4.codes[0], MXFP4.scales),
     r"blocks: expected a tensor \[E, rows, columns / 2\], got \[4, 32\]"),
    (lambda: smlora.from_mxfp4(MXFP4.scales, MXFP4.codes), r"blocks: expected \[E, rows, columns / 32, 16\] .*got \[2, 4, 2\]"),
    (lambda: smlora.from_mxfp4(MXFP4.codes.view(2, 4, 1, 32), MXFP4.scales), r"blocks: expected .* got \[2, 4, 1, 32\]"),
    (lambda: smlora.from_mxfp4("x", MXFP4.scales), "blocks: expected a tensor or a list of them.*, got 'x' of type str"),
    (lambda: smlora.from_mxfp4([], MXFP4.scales), "blocks: expected a tensor or a list of them"),
    (lambda: smlora.from_mxfp4([MXFP4.codes[0], MXFP4.codes[1, :2]], MXFP4.scales),
     r"blocks\[1\]: expected \[4, 32\].*got \[2, 32\]"),
    (lambda: smlora.from_mxfp4([MXFP4.codes[0], 7], MXFP4.scales), r"blocks\[1\]: expected a tensor, got 7 of type int"),
    (lambda: smlora.from_mxfp4(MXFP4.codes.transpose(0, 1).contiguous().transpose(0, 1), MXFP4.scales),
     "^blocks: expected .*contiguous"),
    (lambda: smlora.from_fp8(FP8.codes, FP8.scales, 128, 2), r"^scale_inv: expected \[E, parts ceil.*got \[2, 2, 3\]"),
    (lambda: smlora.from_fp8(FP8.codes, FP8.scales, [128, 64], 2),
     r"block: expected a number or two that are the same, got \[128, 64\]"),
    (lambda: smlora.from_fp8(FP8.codes, FP8.scales, 24, 4), "^parts: expected a divisor of rows = 6, got 4"),
    (lambda: smlora.from_nvfp4(NVFP4.codes, NVFP4.scales, torch.ones(3)),
     r"global_scale: expected float32.*\[E\] = \[2\].*got \[3\]"),
    (lambda: smlora.from_nvfp4(NVFP4.codes, NVFP4.scales, None), "global_scale: expected a number, got None"),
    (lambda: smlora.from_nvfp4([[NVFP4.codes[0], NVFP4.codes[0, :, :3]]], [NVFP4.scales[0]], 1.0),
     r"packed\[0\]: expected parts of the same"),
    (lambda: smlora.from_compressed_tensors(INT4.codes, INT4.scales[:, :, :0]), "weight_scale: expected .*groups"),
    *((lambda shape=shape: smlora.from_compressed_tensors(INT4.codes, INT4.scales, weight_shape=shape), message)
      for shape, message in WRONG_SHAPES),
    (lambda: smlora.from_compressed_tensors([[INT4.codes[0, :1], INT4.codes[0, 1:]]], INT4.scales[:1],
                                            weight_shape=[[torch.tensor([2, 64]), torch.tensor([3, 64])]]),
     r"^weight_shape: expected 4 rows, .* for expert 0, got \[\[2, 64\], \[3, 64\]\]"),
    (lambda: smlora.from_compressed_tensors(NVFP4.codes, NVFP4.scales), "weight_global_scale: expected a tensor.*got None"),
    (lambda: smlora.from_compressed_tensors(INT4.codes, INT4.scales, weight_zero_point=INT4.codes),
     "weight_zero_point: expected None"),
    (lambda: smlora.from_compressed_tensors(INT4.codes, INT4.scales, weight_g_idx=INT4.codes), "weight_g_idx: expected None"),
    (lambda: smlora.from_bnb(NF4.codes), "quant_state: expected one, as param_or_codes has none of its own, got None"),
    (lambda: smlora.from_bnb(NF4.codes, 3), "quant_state: expected a QuantState of nf4 or fp4, got 3 of type int"),
    (lambda: smlora.from_torchao(7), "tensor: expected one of torchao's .*, got 7 of type int$"),
    (lambda: smlora.from_bnb(7), "param_or_codes: expected a tensor, got 7 of type int"),
    (lambda: smlora.from_bnb([NF4.codes, 7]), r"param_or_codes\[1\]: expected a tensor, got 7 of type int"),
    (lambda: smlora.from_bnb([NF4.codes], [STATE, STATE]), "quant_state: expected a list of 1"),
    (lambda: smlora.from_bnb(NF4.codes[:5], STATE), "^param_or_codes: expected ceil.E rows columns / 2. = 512 .*, got"),
    (lambda: smlora.from_bnb(NF4.codes.view(torch.int8).view(2, 8, 32), torch.ones(3)),
     r"quant_state: expected the scales \[E, rows\]"),
    (lambda: smlora.from_bnb([NF4.codes] * 2, [QuantState("nf4", torch.Size((7, 9)), 64, NF4.scales, NF4.table)] * 2),
     r"param_or_codes: expected experts of a multiple of 64 values, the block, got \[7, 9\]"),
    (lambda: smlora.from_bnb([NF4.codes] * 2, [STATE, QuantState("fp4", NF4.shape, 64, NF4.scales, NF4.table)]),
     r"quant_state\[1\]: expected nf4"),
    (lambda: smlora.from_bnb([NF4.codes] * 2, [STATE, torch.ones(2)]), "quant_state: expected a QuantState of nf4 or fp4, got"),
    (lambda: smlora.from_bnb([NF4.codes] * 2, [STATE] * 2, shape=[3, 8, 64]), r"shape: expected 2 experts, .*, got \[3, 8, 64\]"),
    (lambda: smlora.from_bnb([NF4.codes], [QuantState("nf4", torch.Size((1024,)), 64, NF4.scales, NF4.table)]),
     r"shape: expected \[E, rows, columns\], which the weight does not say, got \[1, 1024\]"),
    (lambda: smlora.from_nvfp4(NVFP4.codes, NVFP4.scales, 1.0, divisor="no"), "divisor: expected True or False, got 'no'"),
    (lambda: smlora.from_torchao(torch.zeros(2, 4, 64)),
     r"tensor: expected one of torchao's MXTensor, NVFP4Tensor, Float8Tensor, got \[2, 4, 64\] of type Tensor"),
    (lambda: smlora.dequantize(torch.zeros(2), torch.float32), r"weight: expected a QuantizedWeight, got \[2\]"),
    (lambda: MXFP4.dequantize(torch.float64), "dtype: expected bfloat16, float16 or float32, got torch.float64"),
    (lambda: MXFP4.transpose(0, 1), "dim0, dim1: expected 1 and 2.*got 0 and 1"),
    (lambda: smlora.QuantizedWeight("nf5", 2, 4, 64, MXFP4.codes, MXFP4.scales).check(),
     "weight.encoding: expected one of nf4.*got 'nf5'"),
    (lambda: smlora.QuantizedWeight("mxfp4", 2, 4, 64, MXFP4.codes, None).check(),
     "weight.scales: expected a tensor.*got None"),
    (lambda: smlora.QuantizedWeight("mxfp4", 2, 4, 64, MXFP4.codes, MXFP4.scales, block=32, table=NF4.table).check(),
     "weight.table: expected None with encoding mxfp4"),
    (lambda: smlora.QuantizedWeight("nvfp4", 2, 4, 64, NVFP4.codes, NVFP4.scales, 16, 2, global_scales=NVFP4.global_scales,
                                    global_scale="times").check(),
     "weight.global_scale: expected \"factor\" or \"divisor\", got 'times'"),
    (lambda: smlora.QuantizedWeight("mxfp4", 2, 4, 64, MXFP4.codes, MXFP4.scales.to("meta"), block=32).check(),
     "weight.scales: expected a tensor on cpu, where weight.codes is, got one on meta"),
]


@pytest.mark.parametrize("make, message", WRONG)
def test_errors_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- what it is for torch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_slices_of_experts_share_the_memory(name):
    weight = random_weight(name, 4, 256, 64)
    values = weight.dequantize(torch.float32)
    for experts in (slice(1, 3), slice(2, None), slice(None, 3), slice(-1, None), slice(None)):
        part = weight[experts]
        assert same_bits(part.dequantize(torch.float32), values[experts])
        assert part.codes.untyped_storage().data_ptr() == weight.codes.untyped_storage().data_ptr()
        assert same_bits(part.transpose(1, 2).dequantize(torch.float32), values[experts].transpose(1, 2))


def test_slices_that_cut_a_block_are_refused():
    weight = smlora.quantize(torch.randn(3, 5, 33), "nf4")
    for experts in (slice(1, 3), slice(0, 2)):
        with pytest.raises(ValueError, match="experts: expected a range that begins and ends with a block, got .*64 values"):
            weight[experts]
    assert digest(weight[:]) == digest(weight)
    double = random_weight("nf4_double", 4, 32, 64)
    with pytest.raises(ValueError, match="a block of blocks of 16384 values goes on from expert 0 to expert 1"):
        double[1:]
    for experts in (1, slice(0, 3, 2), slice(2, 1), slice(3, None), "a"):
        with pytest.raises(ValueError, match="experts: expected "):
            weight[experts]


def test_it_is_a_node_of_pytrees():
    weight = random_weight("nvfp4", 3, 4, 32).transpose(1, 2)
    leaves, spec = pytree.tree_flatten({"a": [weight, 1]})
    assert len(leaves) == 4 and all(leaf is tensor for leaf, tensor in zip(leaves, weight.tensors().values()))
    again = pytree.tree_unflatten(leaves, spec)["a"][0]
    assert again.format == weight.format and digest(again) == digest(weight)
    keys = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(weight)[0]]
    assert keys == [".codes", ".scales", ".global_scales"]
    meta = pytree.tree_map(lambda tensor: tensor.to("meta"), weight)
    assert meta.shape == weight.shape and meta.device.type == "meta"


def test_it_says_what_it_is_without_its_values():
    weight = random_weight("nf4_double", 2, 8, 64).transpose(1, 2)
    assert repr(weight) == (
        "QuantizedWeight(nf4, shape=[2, 64, 8], block=64, outer_block=256, transposed=True, device='cpu')"
    )
    assert weight.size() == weight.shape == (2, 64, 8) and weight.size(1) == 64 and weight.E == 2
    assert weight.nbytes == 2 * 8 * 64 // 2 + 16 + 4 + 16 * 4 + 256 * 4 + 4
    assert weight.transpose(-1, 1).shape == (2, 8, 64)


def test_it_cannot_be_changed():
    weight = random_weight("mxfp4", 2, 4, 64)
    with pytest.raises(AttributeError):
        weight.codes = None


@pytest.mark.parametrize("name", OPTIONS)
def test_files_of_it_are_read_as_weights_only(name, tmp_path):
    weight = random_weight(name, 2, 8, 64).transpose(1, 2)
    torch.save({"experts": [weight], "step": 3}, tmp_path / "weight.pt")
    stored = torch.load(tmp_path / "weight.pt", weights_only=True)
    made = stored["experts"][0]
    assert stored["step"] == 3 and made.format == weight.format and digest(made) == digest(weight)
    assert same_bits(made.dequantize(torch.float32), weight.dequantize(torch.float32))
    part = torch.load(tmp_path / "weight.pt", weights_only=True, map_location="meta")["experts"][0]
    assert part.device.type == "meta" and part.format == weight.format


def test_what_files_say_is_checked_when_it_is_used(tmp_path):
    weight = random_weight("mxfp4", 2, 8, 64)
    vars(weight)["E"] = 3
    torch.save(weight, tmp_path / "weight.pt")
    assert b"smlora.quantized\nQuantizedWeight" in (tmp_path / "weight.pt").read_bytes()
    with pytest.raises(ValueError, match=r"weight.codes: expected \[E, .* = \[3, .*got \[2, 8, 32\]"):
        torch.load(tmp_path / "weight.pt", weights_only=True).dequantize(torch.float32)


def test_moving_it(device):
    weight = random_weight("nvfp4", 2, 4, 64)
    moved = weight.to(device)
    assert moved.device.type == device.type and digest(moved) == digest(weight)
    assert all(tensor.device.type == device.type for tensor in moved.tensors().values())


def test_opcheck_of_dequantize(device):
    for name in ("nf4", "nf4_double", "fp4", "int8", "int4"):  # opcheck cannot compare tensors of float8
        weight = random_weight(name, 2, 8, 64, device)
        opcheck(torch.ops.smlora.dequantize.default, (*weight.operands(), torch.bfloat16))


@pytest.mark.parametrize("name", OPTIONS)
def test_dequantize_within_a_compiled_function(device, name):
    torch._dynamo.reset()
    weight = random_weight(name, 2, 8, 64, device)
    compiled = torch.compile(lambda weight: weight.transpose(1, 2).dequantize(torch.float32) + 1, fullgraph=True)
    assert torch.equal(compiled(weight), weight.dequantize(torch.float32).transpose(1, 2) + 1)
