"""The drop-in for axolotl's scattermoe_lora with MXFP4, NVFP4 and bitsandbytes experts, against the same decoded."""

import pytest
import smlora.scattermoe
import torch
import torch.utils.checkpoint
from quantised import QuantState, random_weight, same_bits
from reference import assert_close, random_choices
from smlora.scattermoe import ScatterMoELoRA, flatten_sort_count, parallel_linear, parallel_linear_lora
from smlora.scattermoe import mx_weights, selective_dequant
from smlora.scattermoe._experts import chosen_experts
from smlora.scattermoe.kernels import lora_ops
from smlora.scattermoe.selective_dequant_kernel import selective_dequant_nf4_triton
from torch.multiprocessing.reductions import StorageWeakRef

E, K, N, R, T, TOP_K, SCALING = 5, 96, 22, 3, 11, 2, 1.5
M = T * TOP_K
E2M1 = torch.float4_e2m1fn_x2


def random_codes(*shape, device):
    return torch.randint(256, shape, dtype=torch.uint8).to(device)


class TorchaoTensor:
    """As much of a tensor of torchao as smlora reads."""

    elem_dtype, orig_dtype, is_swizzled_scales = E2M1, torch.bfloat16, False

    def __init__(self, qdata, scale, block_size):
        self.qdata, self.scale, self.block_size, self.data = qdata, scale, block_size, self


class MXTensor(TorchaoTensor):
    pass


class NVFP4Tensor(TorchaoTensor):
    per_tensor_scale = None


def mx_tensor(device):
    scales = torch.randint(118, 128, (E, N, K // 32), dtype=torch.uint8).to(device)
    return MXTensor(random_codes(E, N, K // 2, device=device), scales.view(torch.float8_e8m0fnu), 32)


def nv_tensor(device):
    scales = torch.rand(E, N, K // 16).to(device).to(torch.float8_e4m3fn)
    tensor = NVFP4Tensor(random_codes(E, N, K // 2, device=device), scales, 16)
    tensor.per_tensor_scale = torch.rand(E, 1, 1, device=device) * 0.1 + 0.01
    return tensor


SELECT = {"mx": (mx_tensor, mx_weights.selective_mx_weights_fwd), "nv": (nv_tensor, mx_weights.selective_nvfp4_weights_fwd)}


def factor(tensor, name):
    if name == "mx":
        return tensor.scale.float()
    return tensor.scale.float() * tensor.per_tensor_scale


def by_hand(tensor, name, dtype):
    """[E, N, K] by the formula."""
    table = mx_weights.fp4_codebook(tensor.qdata.device)
    low, high = tensor.qdata & 15, tensor.qdata >> 4
    values = table[torch.stack([low, high], -1).flatten(2).long()]
    return (values * factor(tensor, name).repeat_interleave(tensor.block_size, 2)).to(dtype)


class Case:
    def __init__(self, device, dtype, skipped=(1,)):
        def leaf(*shape):
            return torch.randn(shape).to(device, dtype).requires_grad_()

        self.x, self.A, self.B, self.bias = leaf(T, K), leaf(E * R, K), leaf(N, E * R), torch.randn(E, N).to(device, dtype)
        self.gates = torch.rand(T, TOP_K).to(device, dtype).requires_grad_()
        known = torch.tensor([e for e in range(E) if e not in skipped], device=device)
        choices = known[random_choices(T, TOP_K, len(known), device)]
        self.experts, self.scattered, self.offsets = flatten_sort_count(choices, E)
        self.leaves = self.x, self.A, self.B, self.gates


def results(case, y):
    gradients = torch.autograd.grad(y, case.leaves, torch.ones_like(y).cumsum(0) / 8)
    return y.detach(), *gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SELECT)
def test_a_step_is_that_of_the_decoded_weights(device, name, dtype):
    make, select = SELECT[name]
    case, tensor = Case(device, dtype), make(device)
    stored = tensor.qdata.clone()
    arguments = TOP_K, case.experts, case.scattered, case.offsets
    named = dict(lora_A=case.A, lora_B=case.B, scaling=SCALING, expert_biases=case.bias, gates=case.gates)
    weights = select(tensor, torch.arange(E, device=device))
    assert weights.packed.data_ptr() == tensor.qdata.data_ptr()
    plain = by_hand(tensor, name, dtype).transpose(1, 2)
    expected = results(case, parallel_linear_lora(case.x, plain, *arguments, **named))
    got = results(case, parallel_linear_lora(case.x, weights, *arguments, **named))
    positional = ScatterMoELoRA.apply(case.x, weights, *arguments, case.A, case.B, SCALING, case.bias, case.gates)
    for other in (got, results(case, positional)):
        for result, wanted in zip(other, expected, strict=True):
            assert torch.equal(result, wanted)
    assert torch.equal(tensor.qdata, stored)

    active = selective_dequant.get_active_experts(case.experts, E)
    assert 0 < len(active) < E
    experts, offsets = selective_dequant.remap_expert_indices(case.experts, case.offsets, active, E)
    A, B = selective_dequant.selective_lora_weights(case.A, case.B, active, E)
    y = parallel_linear_lora(case.x, select(tensor, active), TOP_K, experts, case.scattered, offsets, lora_A=A, lora_B=B,
                             scaling=SCALING, expert_biases=case.bias[active], gates=case.gates)
    for result, wanted in zip(results(case, y), expected, strict=True):
        assert_close(result, wanted, dtype, factor=2)  # another number of experts may have another configuration


@pytest.mark.parametrize("name", SELECT)
def test_a_projection_without_adapters(device, name):
    make, select = SELECT[name]
    case, tensor = Case(device, torch.bfloat16), make(device)
    arguments = TOP_K, case.experts, case.scattered, case.offsets
    plain, weights = by_hand(tensor, name, torch.bfloat16).transpose(1, 2), select(tensor, torch.arange(E, device=device))
    for function in (parallel_linear, parallel_linear_lora):
        expected = function(case.x, plain, *arguments, expert_biases=case.bias)
        got = function(case.x, weights, *arguments, expert_biases=case.bias)
        assert got.requires_grad and torch.equal(got, expected)
        with torch.no_grad():
            assert torch.equal(function(case.x, weights, *arguments, expert_biases=case.bias), expected)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", SELECT)
def test_kernels(device, name, grouped):
    make, select = SELECT[name]
    case, tensor = Case(device, torch.float32), make(device)
    plain, weights = by_hand(tensor, name, torch.float32).transpose(1, 2), select(tensor, torch.arange(E, device=device))
    arrays, adapter = (case.experts, case.scattered), (case.A, case.B, SCALING)
    x, k = (torch.randn(M, K, device=device), 1) if grouped else (case.x, TOP_K)
    named = dict(b=case.bias, x_grouped=grouped, y_grouped=grouped, int64_indices=True)
    out = torch.full((M, N), torch.nan, device=device)
    got = lora_ops.scatter2scatter_lora_mx(x, weights, *arrays, k, *adapter, out=out, **named)
    assert got is out and torch.equal(got, lora_ops.scatter2scatter_lora(x, plain, *arrays, k, *adapter, **named))
    dy, named = torch.randn(M, N, device=device), dict(dy_grouped=grouped, dx_grouped=not grouped)
    out = torch.full((M, K), torch.nan, device=device)
    got = lora_ops.scatter2scatter_lora_dX_mx(dy, weights, *arrays, 1, *adapter, out=out, **named)
    assert got is out and torch.equal(got, lora_ops.scatter2scatter_lora_dX(dy, plain, *arrays, 1, *adapter, **named))


def test_mx_weights_of_bytes(device):
    """As a caller with a checkpoint of gpt-oss makes them; the byte 255 of uint8 is 2^128."""
    tensor = mx_tensor(device)
    scales = tensor.scale.view(torch.uint8)
    weights = mx_weights.MXWeights(tensor.qdata, scales, K=K, N=N)
    assert (weights.num_experts, weights.block_size, weights.device.type) == (E, 32, device.type)
    assert weights.quantized.shape == (E, K, N)
    assert same_bits(weights.quantized.dequantize(torch.bfloat16), by_hand(tensor, "mx", torch.bfloat16).transpose(1, 2))


@pytest.mark.parametrize("changes, message", [
    (dict(K=K + 2), r"num_experts, N, K: expected 5, 22 and 96, as packed is \[5, 22, 48\], got None, 22 and 98"),
    (dict(num_experts=4), "num_experts, N, K: expected 5, 22 and 96, .*, got 4, 22 and 96"),
    (dict(block_size=16), "block_size: expected 32 with scale_is_linear=False, got 16"),
    (dict(layout=1), "layout: expected MXLayout.FWD, got 1"),
    (dict(per_tensor_scale=torch.ones(1)), r"per_tensor_scale: expected None with scale_is_linear=False, got \[1\]"),
    (dict(scale_is_linear=True), "block_size: expected 16 with scale_is_linear=True, got 32"),
    (dict(scale_is_linear=True, block_size=16, scales=torch.ones(E, N, K // 16)),
     "scales: expected float8_e4m3fn with scale_is_linear=True, .* per_tensor_scale, got torch.float32"),
    (dict(scales=torch.ones(E, N, 2, dtype=torch.uint8)),
     r"scales: expected \[E, rows, columns / block\] = \[5, 22, 3\], got \[5, 22, 2\]"),
])
def test_wrong_mx_weights(changes, message):
    tensor = mx_tensor("cpu")
    arguments = dict(dict(packed=tensor.qdata, scales=tensor.scale, K=K, N=N), **changes)
    with pytest.raises(ValueError, match=message):
        mx_weights.MXWeights(**arguments)


def test_what_selects_says_what_it_wants():
    mx, nv, all_of_them = mx_tensor("cpu"), nv_tensor("cpu"), torch.arange(E)
    assert selective_dequant.is_mxfp4_param(mx) and not selective_dequant.is_mxfp4_param(nv)
    assert selective_dequant.is_nvfp4_param(nv) and not selective_dequant.is_nvfp4_param(mx)
    assert not selective_dequant.is_mxfp4_param(torch.zeros(2)) and not selective_dequant.is_nvfp4_param(None)
    with pytest.raises(ValueError, match="mx_param: expected torchao's MXTensor of float4_e2m1fn_x2, got "):
        mx_weights.selective_mx_weights_fwd(nv, all_of_them)
    with pytest.raises(ValueError, match=r"nv_param: expected torchao's NVFP4Tensor, got \[2\]"):
        mx_weights.selective_nvfp4_weights_fwd(torch.zeros(2), all_of_them)
    mx.qdata, mx.scale = mx.qdata.transpose(1, 2), mx.scale.transpose(1, 2)
    with pytest.raises(ValueError, match="mx_param: expected .* with blocks along K, got a transposed MXTensor"):
        mx_weights.selective_mx_weights_fwd(mx, all_of_them)


# ---- values of some experts -------------------------------------------------------------------------------------------


class Module:
    num_experts = E


def parametrised(weight, dtype):
    """A module as bitsandbytes' replace_parameter_4bit leaves it, or axolotl's counterpart for 8 bits. Reading the attribute
    fails, which would decode all experts."""
    steps = torch.nn.ModuleList([torch.nn.Module()])
    steps.original = weight.codes
    if weight.encoding == "int8":
        steps[0].row_stats = weight.scales
    else:
        inner = None
        if weight.outer_scales is not None:
            inner = QuantState(None, None, weight.outer_block, weight.outer_scales, weight.outer_table)
        steps[0].quant_state = QuantState(weight.encoding, weight.shape, weight.block, weight.scales, weight.table, inner,
                                          weight.outer_offset)
        steps[0].quant_state.dtype = dtype
    module = Module()
    module.parametrizations = {"gate_up_proj": steps}
    return module


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(N, K), (7, 33)])
@pytest.mark.parametrize("encoding", ["nf4", "nf4_double", "fp4", "int8"])
def test_values_of_parametrised_experts(device, encoding, shape, dtype):
    """7 x 33: blocks go on from one expert to the next."""
    weight = random_weight(encoding, E, *shape, device)
    dtype = torch.bfloat16 if encoding == "int8" else dtype
    module, every = parametrised(weight, dtype), weight.dequantize(dtype)
    for active in ([1], [0, 2, 4], list(range(E)), [4, 3, 2, 1, 0]):
        active = torch.tensor(active, device=device)
        got = selective_dequant.selective_expert_weights(module, "gate_up_proj", active)
        assert same_bits(got, every[active])
        if encoding != "int8":
            state = module.parametrizations["gate_up_proj"][0].quant_state
            state.shape = (weight.shape.numel(),)
            assert same_bits(selective_dequant._selective_dequant_bnb4(weight.codes, state, active, shape), every[active])
            state.shape = weight.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(N, K), (7, 33)])
def test_values_of_nf4(device, shape, dtype):
    weight = random_weight("nf4", E, *shape, device)
    active = torch.tensor([0, 3], device=device)
    arguments = weight.codes.view(-1, 1), weight.scales, active, shape, weight.block
    assert same_bits(selective_dequant_nf4_triton(*arguments, dtype), weight.dequantize(dtype)[active])
    reversed_table = selective_dequant_nf4_triton(*arguments, dtype, weight.table.flip(0).double())
    weight = smlora.QuantizedWeight.from_tensors(weight.format, dict(weight.tensors(), table=weight.table.flip(0)))
    assert same_bits(reversed_table, weight.dequantize(dtype)[active])


def test_values_of_other_parameters(device):
    module, active = Module(), torch.tensor([1, 4], device=device)
    for name, (make, _) in SELECT.items():
        module.down_proj = make(device)
        got = selective_dequant.selective_expert_weights(module, "down_proj", active)
        assert same_bits(got, by_hand(module.down_proj, name, torch.bfloat16)[active])
    module.down_proj = random_weight("fp8", E, 48, K, device)
    got = selective_dequant.selective_expert_weights(module, "down_proj", active)
    assert same_bits(got, module.down_proj.dequantize(torch.bfloat16)[active])
    module.down_proj = torch.randn(E, N, K, device=device)
    assert torch.equal(selective_dequant.selective_expert_weights(module, "down_proj", active), module.down_proj[active])
    module.down_proj = torch.randn(E * N, K)
    with pytest.raises(ValueError, match=r"down_proj: expected .* of 3 dimensions, got \[110, 96\]"):
        selective_dequant.selective_expert_weights(module, "down_proj", active)


@pytest.mark.parametrize("encoding", ["nf4", "nf4_double", "fp4", "int8", "mxfp4", "fp8", "mxfp8", "nvfp4", "int4"])
@pytest.mark.parametrize("transposed", [False, True])
def test_chosen_experts(device, encoding, transposed):
    weight = random_weight(encoding, E, 48, K, device)
    weight = weight.transpose(1, 2) if transposed else weight
    active = torch.tensor([3, 0], device=device)
    got = chosen_experts(weight, active).check()
    assert got.shape == (2, *weight.shape[1:])
    assert same_bits(got.dequantize(torch.float32), weight.dequantize(torch.float32)[active])
    assert chosen_experts(weight, torch.arange(E, device=device)) is weight


def test_experts_that_share_a_block_cannot_be_chosen():
    with pytest.raises(ValueError, match=r"weight: expected experts of a multiple of 64 values, .*, got \[5, 7, 33\]"):
        chosen_experts(random_weight("nf4", E, 7, 33), torch.tensor([0, 2]))


def test_indices_and_adapters_of_active_experts(device):
    experts = torch.tensor([-1, 0, 0, 3, 4, 4, 5], device=device)
    active = selective_dequant.get_active_experts(experts, E)
    assert active.tolist() == [0, 3, 4]
    ranks, offsets = selective_dequant.remap_expert_indices(experts, torch.tensor([2, 2, 2, 3, 5], device=device), active, E)
    assert ranks.tolist() == [3, 0, 0, 1, 2, 2, 3] and offsets.tolist() == [2, 3, 5]
    A, B = torch.randn(E * R, K, device=device), torch.randn(N, E * R, device=device)
    got_A, got_B = selective_dequant.selective_lora_weights(A, B, active, E)
    assert torch.equal(got_A, torch.cat([A[e * R : (e + 1) * R] for e in (0, 3, 4)]))
    assert torch.equal(got_B, torch.cat([B[:, e * R : (e + 1) * R] for e in (0, 3, 4)], 1))


def test_shards_share_what_is_decoded(device, monkeypatch):
    module = parametrised(random_weight("nf4", E, N, K, device), torch.bfloat16)
    shards = [torch.tensor(experts, device=device) for experts in ([0, 0, 2], [2, 4, 4], [0])]
    decoded = []
    original = selective_dequant.decoded_experts
    monkeypatch.setattr(selective_dequant, "decoded_experts", lambda *given: decoded.append(given[1]) or original(*given))
    union, values, indices = selective_dequant.shared_dequant_across_shards(module, "gate_up_proj", shards, E)
    assert union.tolist() == [0, 2, 4] and [experts.tolist() for experts in decoded] == [[0, 2, 4]]
    for shard, index in zip(shards, indices, strict=True):
        expected = selective_dequant.selective_expert_weights(module, "gate_up_proj", torch.unique(shard))
        assert torch.equal(values[index], expected)
    with pytest.raises(ValueError, match="sei_per_shard: expected the indices of one shard or more, got none"):
        selective_dequant.shared_dequant_across_shards(module, "gate_up_proj", [], E)


# ---- the libraries themselves, where they are installed ---------------------------------------------------------------


def test_tensors_of_torchao(device):
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor", reason="needs torchao").MXTensor
    nv = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor", reason="needs torchao").NVFP4Tensor
    values, active = torch.randn(E, N, K, device=device, dtype=torch.bfloat16), torch.tensor([0, 3], device=device)
    for tensor, select in (
        (mx.to_mx(values, E2M1, 32), mx_weights.selective_mx_weights_fwd),
        (nv.to_nvfp4(values, 16, per_tensor_scale=torch.rand(E, 1, 1, device=device) + 0.1),
         mx_weights.selective_nvfp4_weights_fwd),
    ):
        expected, module = tensor.dequantize(torch.bfloat16)[active], Module()
        for param in (tensor, torch.nn.Parameter(tensor, requires_grad=False)):
            got = select(param, active).quantized.transpose(1, 2).dequantize(torch.bfloat16)
            assert same_bits(got, expected)
            module.gate_up_proj = param
            assert same_bits(selective_dequant.selective_expert_weights(module, "gate_up_proj", active), expected)


@pytest.mark.parametrize("double", [False, True])
def test_a_parameter_of_bitsandbytes(device, double):
    functional = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes").functional
    flat = torch.randn(E * N * K, device=device, dtype=torch.bfloat16)
    codes, state = functional.quantize_4bit(flat, blocksize=64, quant_type="nf4", compress_statistics=double)
    active = torch.tensor([0, 3], device=device)
    got = selective_dequant._selective_dequant_bnb4(codes, state, active, (N, K))
    assert same_bits(got, functional.dequantize_4bit(codes, state).view(E, N, K)[active])


def test_a_step_through_its_tangents(device):
    """Forward mode goes through MXWeights as through any weight."""
    case, tensor = Case(device, torch.float32), mx_tensor(device)
    weights = mx_weights.selective_mx_weights_fwd(tensor, torch.arange(E, device=device))
    arguments = TOP_K, case.experts, case.scattered, case.offsets

    def step(x):
        return parallel_linear_lora(x, weights, *arguments, lora_A=case.A.detach(), lora_B=case.B.detach(), scaling=SCALING)

    x = case.x.detach()
    assert_close(torch.func.jvp(step, (x,), (x.sin(),))[1], step(x.sin()), torch.float32)


def weights_with_recipe(kind, device, made):
    """Weights of all experts as axolotl's layer makes them, and `made` of a number for each time that they are made."""
    tensor, plain = mx_tensor(device), torch.randn(E, N, K, device=device)

    def make():
        made.append(1)
        if kind == "mx":
            return mx_weights.MXWeights(tensor.qdata.clone(), tensor.scale.clone(), K=K, N=N)
        return (plain.double() if kind == "cast" else plain.clone()).transpose(1, 2)

    weights = make()
    weights.recipe = make
    return weights


@pytest.mark.parametrize("kind", ["mx", "plain", "cast"])
def test_weights_with_a_recipe_are_not_kept(device, kind):
    case, made = Case(device, torch.float32), []
    weights = weights_with_recipe(kind, device, made)
    arguments = TOP_K, case.experts, case.scattered, case.offsets
    adapter = dict(lora_A=case.A, lora_B=case.B, scaling=SCALING, gates=case.gates)
    without = weights.quantized if kind == "mx" else weights.detach()
    expected = results(case, parallel_linear_lora(case.x, without, *arguments, **adapter))
    for through in ("", "hooks", "checkpoint"):
        packed, made[:] = [], []

        def step(x, A, B, gates):
            return parallel_linear_lora(x, weights, *arguments, lora_A=A, lora_B=B, scaling=SCALING, gates=gates)

        if through == "checkpoint":
            y = torch.utils.checkpoint.checkpoint(step, *case.leaves, use_reentrant=False)
        elif through == "hooks":
            hooks = lambda kept: packed.append(kept.shape) or [kept], lambda kept: kept[0]
            with torch.autograd.graph.saved_tensors_hooks(*hooks):
                y = step(*case.leaves)
            assert case.x.shape in packed and (E, K, N) not in packed and (E, N, K // 2) not in packed
        else:
            y = step(*case.leaves)
        assert made == []
        for result, wanted in zip(results(case, y), expected, strict=True):
            assert torch.equal(result, wanted)
        assert made == [1]


@pytest.mark.parametrize("kind", ["mx", "plain"])
@pytest.mark.parametrize("with_recipe", [False, True])
def test_the_memory_of_weights_with_a_recipe_is_free_after_forward(device, kind, with_recipe):
    case = Case(device, torch.float32)
    weights = weights_with_recipe(kind, device, [])
    if not with_recipe:
        del weights.recipe
    memory = StorageWeakRef((weights.packed if kind == "mx" else weights).untyped_storage())
    y = parallel_linear_lora(case.x, weights, TOP_K, case.experts, case.scattered, case.offsets, lora_A=case.A, lora_B=case.B)
    assert y.requires_grad
    del weights
    assert memory.expired() == with_recipe
