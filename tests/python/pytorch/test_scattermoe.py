"""The drop-in for axolotl's scattermoe_lora, against loops over experts."""

import os
import subprocess
import sys

import pytest
import smlora.scattermoe
import torch
from reference import assert_close, random_choices
from smlora.scattermoe import ParallelExperts, ScatterMoELoRA, flatten_sort_count, parallel_linear, parallel_linear_lora
from smlora.scattermoe.kernels import lora_ops, ops

E, K, N, R, T, TOP_K, SCALING = 5, 24, 16, 3, 11, 2, 1.5
M = T * TOP_K


@pytest.fixture
def case(device):
    class Case:
        def random(*shape):
            return torch.randn(shape, device=device).requires_grad_()

        W, A, B, bias = random(E, K, N), random(E * R, K), random(N, E * R), random(E, N)
        x, gates = random(T, K), torch.rand(T, TOP_K, device=device, requires_grad=True)
        choices = random_choices(T, TOP_K, E, device)
        experts, scattered, offsets = flatten_sort_count(choices, E)

    return Case


def delta(case, e):
    return SCALING * (case.B[:, e * R : (e + 1) * R] @ case.A[e * R : (e + 1) * R]).T


def loop(case, rows, grouped_in, grouped_out, adapter=True, bias=None):
    """y by one product for each entry; rows are those of the function under test."""
    out = []
    fan_out = M // rows.shape[0]
    for position, flat in enumerate(case.scattered.tolist()):
        e = int(case.experts[position])
        row = rows[position if grouped_in else flat // fan_out]
        y = row @ (case.W[e] + delta(case, e) if adapter else case.W[e])
        out.append(y if bias is None else y + bias[e])
    out = torch.stack(out)
    return out if grouped_out else torch.zeros_like(out).index_copy(0, case.scattered, out)


def test_flatten_sort_count(case):
    flat = case.choices.flatten()
    ordered, order = torch.sort(flat, stable=True)
    assert torch.equal(case.experts, ordered) and torch.equal(case.scattered, order)
    assert torch.equal(case.offsets, torch.bincount(flat, minlength=E).cumsum(0))
    assert case.offsets.dtype == torch.int64


@pytest.mark.parametrize("y_grouped", [False, True])
@pytest.mark.parametrize("x_grouped", [False, True])
def test_products(case, x_grouped, y_grouped):
    x = torch.randn(M, K, device=case.x.device) if x_grouped else case.x
    k = 1 if x_grouped else TOP_K
    arrays = case.experts, case.scattered
    flags = dict(x_grouped=x_grouped, y_grouped=y_grouped)
    expected = loop(case, x, x_grouped, y_grouped, adapter=False, bias=case.bias)
    out = torch.empty(M, N, device=x.device)
    got = ops.scatter2scatter(x, case.W, *arrays, k, b=case.bias, out=out, **flags)
    assert got is out
    assert_close(got, expected, torch.float32)
    residual = torch.randn(M, N, device=x.device)
    assert_close(
        ops.scatter2scatter(x, case.W, *arrays, k, b=case.bias, residual=residual, **flags), expected + residual,
        torch.float32
    )
    expected = loop(case, x, x_grouped, y_grouped, bias=case.bias)
    got = lora_ops.scatter2scatter_lora(x, case.W, *arrays, k, case.A, case.B, SCALING, b=case.bias, **flags)
    assert_close(got, expected, torch.float32)


def test_the_split_path_is_taken_when_asked_for(case, monkeypatch):
    arguments = case.x, case.W, case.experts, case.scattered, TOP_K, case.A, case.B, SCALING
    fused = lora_ops.scatter2scatter_lora(*arguments)
    taken = []
    split = lora_ops._split
    monkeypatch.setattr(lora_ops, "_split", lambda *arguments: taken.append(1) or split(*arguments))
    monkeypatch.setattr(lora_ops, "_SPLIT_LORA_FWD_THRESHOLD", 0)
    assert_close(lora_ops.scatter2scatter_lora(*arguments), fused, torch.float32)
    assert taken


@pytest.mark.parametrize("dx_grouped", [False, True])
@pytest.mark.parametrize("dy_grouped", [False, True])
def test_dX(case, dy_grouped, dx_grouped):
    dy = torch.randn(M, N, device=case.x.device)
    got = lora_ops.scatter2scatter_lora_dX(dy, case.W, case.experts, case.scattered, 1, case.A, case.B, SCALING,
                                           dy_grouped=dy_grouped, dx_grouped=dx_grouped)
    expected = torch.zeros_like(got)
    for position, flat in enumerate(case.scattered.tolist()):
        e = int(case.experts[position])
        row = dy[position if dy_grouped else flat] @ (case.W[e] + delta(case, e)).T
        expected[position if dx_grouped else flat] = row
    assert_close(got, expected, torch.float32)


def test_gradients_of_adapters_and_weights(case):
    x = torch.randn(M, K, device=case.x.device)
    y = loop(case, x, True, True)
    dy = torch.randn_like(y)
    dA, dB = torch.autograd.grad(y, (case.A, case.B), dy)
    got = lora_ops.group_bwd_lora(dy, x, case.A, case.B, case.offsets, E, SCALING)
    assert_close(got[0], dA, torch.float32)
    assert_close(got[1], dB, torch.float32)

    y = loop(case, case.x, False, False)
    dA, dB = torch.autograd.grad(y, (case.A, case.B), dy)
    arguments = case.x, case.A, case.B, case.offsets, case.scattered, E, TOP_K, SCALING
    grouped_dy = dy[case.scattered]
    for got in (
        lora_ops.group_bwd_lora_fused(dy, *arguments),
        lora_ops.group_bwd_lora_fused(grouped_dy, *arguments, dy_grouped=True),
    ):
        assert_close(got[0], dA, torch.float32)
        assert_close(got[1], dB, torch.float32)

    y = loop(case, x, True, True, adapter=False, bias=case.bias)
    expected = torch.autograd.grad(y, (case.W, case.bias), dy)
    for got, wanted in zip(ops.group_bwd_W(dy, x, case.offsets, E, has_bias=True), expected, strict=True):
        assert_close(got, wanted, torch.float32)
    assert ops.group_bwd_W(dy, x, case.offsets, E)[1] is None


def test_gradients_of_padded_rows(case):
    dy = torch.randn(M, N, device=case.x.device)
    adapters = case.A, case.B
    expected = lora_ops.group_bwd_lora_fused(dy, case.x, *adapters, case.offsets, case.scattered, E, TOP_K, SCALING)
    experts, scattered, padded, real = lora_ops.round_expert_counts(case.experts, case.scattered, case.offsets, E, 4)
    assert torch.equal(real, case.offsets)
    counts, padded_counts = (torch.diff(offsets, prepend=offsets.new_zeros(1)) for offsets in (real, padded))
    assert torch.equal(padded_counts, (counts + 3) // 4 * 4)
    assert torch.equal(experts, torch.repeat_interleave(torch.arange(E, device=experts.device), padded_counts))
    for rows, grouped in ((dy, False), (dy[scattered], True)):
        got = lora_ops.group_bwd_lora_fused(rows, case.x, *adapters, padded, scattered, E, TOP_K, SCALING,
                                            real_expert_offsets=real, dy_grouped=grouped)
        assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])


def test_gradients_of_given_rank_rows(case):
    from smlora.scattermoe.kernels.grouped_gram import grouped_lora_weight_grads

    x, dy = torch.randn(M, K, device=case.x.device), torch.randn(M, N, device=case.x.device)
    A, B = case.A.view(E, R, K)[case.experts], case.B.view(N, E, R).permute(1, 0, 2)[case.experts]
    xa, yb = (A @ x.unsqueeze(2)).squeeze(2), (dy.unsqueeze(1) @ B).squeeze(1)
    got = grouped_lora_weight_grads(dy, x, yb, xa, case.A, case.B, case.offsets, E, SCALING)
    expected = lora_ops.group_bwd_lora(dy, x, case.A, case.B, case.offsets, E, SCALING)
    assert_close(got[0], expected[0], torch.float32)
    assert_close(got[1], expected[1], torch.float32)


def test_the_adapters_part_of_dX(case):
    from smlora.scattermoe.parallel_linear_lora import _compute_lora_input_grad

    dy = torch.randn(M, N, device=case.x.device)
    arguments = dy, case.W * 0, case.experts, case.scattered, 1, case.A, case.B, SCALING
    expected = lora_ops.scatter2scatter_lora_dX(*arguments, dy_grouped=True, dx_grouped=True)
    assert_close(_compute_lora_input_grad(dy, case.A, case.B, case.offsets, E, SCALING), expected, torch.float32)


@pytest.mark.parametrize("rows", [1, TOP_K])
def test_a_single_token(case, rows):
    from smlora.scattermoe.kernels.single import single2scatter

    x = torch.randn(rows, K, device=case.x.device)
    got = single2scatter(x, case.W, case.choices[:1])
    expected = torch.stack([x[j % rows] @ case.W[e] for j, e in enumerate(case.choices[0].tolist())])
    assert_close(got, expected, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_tenants(case, dtype):
    from smlora.scattermoe import build_multilora_routing, scatter2scatter_multilora

    tenants, device = 3, case.x.device
    tenant = torch.randint(tenants, (M,), device=device)
    arrays = build_multilora_routing(case.choices.flatten(), tenant, E, tenants)
    A, B = torch.randn(E * tenants * R, K, device=device), torch.randn(N, E * tenants * R, device=device)
    trained = [tensor.detach().to(dtype).requires_grad_() for tensor in (case.x, A, B)]
    y = scatter2scatter_multilora(trained[0], case.W.to(dtype), TOP_K, *arrays, *trained[1:], SCALING)
    exact = [tensor.detach().double().requires_grad_() for tensor in trained]
    group = case.choices.flatten() * tenants + tenant
    x = exact[0].repeat_interleave(TOP_K, 0).unsqueeze(1)
    of_group = exact[1].view(-1, R, K)[group], exact[2].view(N, -1, R).permute(1, 0, 2)[group]
    base = x @ case.W.detach().to(dtype).double()[case.choices.flatten()]
    expected = (base + SCALING * x @ of_group[0].transpose(1, 2) @ of_group[1].transpose(1, 2)).squeeze(1)
    # The base's product, the two of the adapter and their sum are rounded one after the other.
    assert_close(y, expected, dtype, factor=2)
    dy = torch.randn_like(y)
    for got, wanted in zip(torch.autograd.grad(y, trained, dy), torch.autograd.grad(expected, exact, dy.double())):
        assert_close(got, wanted, dtype, factor=2)


def test_without_gradients_a_projection_is_one_product(case, monkeypatch):
    arguments = case.x, case.W, TOP_K, case.experts, case.scattered, case.offsets, case.bias
    calls = []
    original = ops.scatter2scatter_compileable
    monkeypatch.setattr(ops, "scatter2scatter_compileable", lambda *given: calls.append(1) or original(*given))
    expected = parallel_linear(*arguments)
    assert not calls
    with torch.no_grad():
        assert torch.equal(parallel_linear(*arguments), expected)
    assert len(calls) == 1


def test_group(case):
    coeff = torch.rand(M, device=case.x.device)
    assert torch.equal(ops.group(case.x, case.scattered, fan_out=TOP_K), case.x[case.scattered // TOP_K])
    rows = torch.randn(M, K, device=case.x.device)
    out = torch.empty_like(rows)
    assert ops.group(rows, case.scattered, coeff=coeff, out=out) is out
    assert_close(out, rows[case.scattered] * coeff[case.scattered, None], torch.float32)


@pytest.mark.parametrize("with_lora", [True, False])
@pytest.mark.parametrize("with_gates", [True, False])
@pytest.mark.parametrize("grouped_in, grouped_out", [(False, False), (False, True), (True, False), (True, True)])
def test_autograd(case, grouped_in, grouped_out, with_gates, with_lora):
    x = torch.randn(M, K, device=case.x.device, requires_grad=True) if grouped_in else case.x
    gates = case.gates if with_gates else None
    adapter = dict(lora_A=case.A, lora_B=case.B, scaling=SCALING) if with_lora else {}
    y = parallel_linear_lora(x, case.W, 1 if grouped_in else TOP_K, case.experts, case.scattered, case.offsets,
                             expert_biases=case.bias, gates=gates, grouped_in=grouped_in, grouped_out=grouped_out,
                             **adapter)
    expected = loop(case, x, grouped_in, grouped_out, adapter=with_lora, bias=case.bias)
    if with_gates:
        expected = (gates.unsqueeze(1) @ expected.view(T, TOP_K, N)).squeeze(1)
    assert_close(y, expected, torch.float32)
    trained = [x, *([case.A, case.B] if with_lora else [case.W, case.bias]), *([gates] if with_gates else [])]
    dy = torch.randn_like(y)
    for got, wanted in zip(torch.autograd.grad(y, trained, dy), torch.autograd.grad(expected, trained, dy)):
        assert_close(got, wanted, torch.float32)


def test_weights_are_frozen_beside_an_adapter(case):
    y = ScatterMoELoRA.apply(case.x, case.W, TOP_K, case.experts, case.scattered, case.offsets, case.A, case.B, SCALING,
                             case.bias)
    y.sum().backward()
    assert case.W.grad is None and case.bias.grad is None and case.A.grad is not None


def test_adapters_and_gates_of_other_types(case):
    x, W = case.x.detach().bfloat16().requires_grad_(), case.W.detach()
    y = ScatterMoELoRA.apply(x, W, TOP_K, case.experts, case.scattered, case.offsets, case.A, case.B.bfloat16(), SCALING,
                             None, case.gates.double())
    dA, dx = torch.autograd.grad(y.float().sum(), (case.A, x))
    assert (y.dtype, dA.dtype, dx.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)


def test_under_autocast_only_what_gates_combine_is_of_its_type(case):
    arguments = case.W, TOP_K, case.experts, case.scattered, case.offsets, case.A, case.B, SCALING
    plain, gated = ScatterMoELoRA.apply(case.x, *arguments), ScatterMoELoRA.apply(case.x, *arguments, None, case.gates)
    with torch.autocast(case.x.device.type, dtype=torch.bfloat16):
        assert torch.equal(ScatterMoELoRA.apply(case.x, *arguments), plain)
        y = ScatterMoELoRA.apply(case.x, *arguments, None, case.gates)
    assert torch.equal(y, gated.bfloat16())
    trained = case.x, case.A, case.B, case.gates
    dy = torch.randn_like(y)
    for got, wanted in zip(torch.autograd.grad(y, trained, dy), torch.autograd.grad(gated, trained, dy.float())):
        assert got.dtype == torch.float32 and torch.equal(got, wanted)


def test_modules(case):
    from smlora.scattermoe import parallel_experts

    arrays = case.experts, case.scattered, case.offsets
    module = ParallelExperts(E, K, N, bias=True).to(case.x.device)
    base = parallel_experts.ParallelExperts(E, K, N, bias=True).to(case.x.device)
    base.load_state_dict(module.state_dict())
    plain = module(case.x, TOP_K, *arrays)
    assert torch.equal(plain, base(case.x, TOP_K, *arrays))
    assert torch.equal(plain, parallel_linear(case.x, module.weight.permute(0, 2, 1), TOP_K, *arrays, module.bias))
    module.set_lora(case.A, case.B, SCALING)
    adapted = module(case.x, TOP_K, *arrays)
    assert not torch.equal(plain, adapted)
    module.clear_lora()
    assert torch.equal(plain, module(case.x, TOP_K, *arrays))


def test_lora_params_from_a_wrapper():
    class Wrapper:
        active_adapters = ["mine"]
        lora_A = {"mine": torch.nn.Linear(4, 6)}
        lora_B = {"mine": torch.nn.Linear(6, 4)}
        scaling = {"mine": 0.5}

    from smlora.scattermoe.parallel_linear_lora import get_lora_params_from_wrapper

    A, B, scaling = get_lora_params_from_wrapper(Wrapper())
    assert (A.shape, B.shape, scaling) == ((6, 4), (4, 6), 0.5)
    assert get_lora_params_from_wrapper(torch.nn.Linear(2, 2)) == (None, None, None)


IMPORTS = """
import smlora.scattermoe
smlora.scattermoe.install()
smlora.scattermoe.install()
from axolotl.integrations.kernels.libs.scattermoe_lora.kernels import lora_ops, ops as base_ops
from axolotl.integrations.kernels.libs.scattermoe_lora.parallel_experts import flatten_sort_count
from axolotl.integrations.kernels.libs.scattermoe_lora.parallel_linear_lora import ScatterMoELoRA
from axolotl.integrations.kernels.libs.scattermoe_lora import ParallelExperts, parallel_linear_lora
from axolotl.integrations.kernels.libs.scattermoe_lora.kernels.single import single2scatter
from axolotl.integrations.kernels.libs.scattermoe_lora.multi_lora import scatter2scatter_multilora
from axolotl.integrations.kernels.libs.scattermoe_lora.mx_weights import MXWeights, selective_nvfp4_weights_fwd
from axolotl.integrations.kernels.libs.scattermoe_lora.selective_dequant import selective_expert_weights
from axolotl.integrations.kernels.libs.scattermoe_lora.selective_dequant_kernel import selective_dequant_nf4_triton
import axolotl.integrations.kernels.libs.scattermoe_lora.kernels.lora_ops as again
import axolotl.integrations.kernels.libs.scattermoe_lora
import axolotl.integrations.kernels.libs.scattermoe_lora.parallel_linear_lora
assert callable(axolotl.integrations.kernels.libs.scattermoe_lora.parallel_linear_lora)
assert parallel_linear_lora.__name__ == "parallel_linear_lora" and callable(parallel_linear_lora)
assert again is lora_ops and lora_ops.__name__ == "smlora.scattermoe.kernels.lora_ops"
assert axolotl.integrations.kernels.libs.scattermoe_lora.kernels.ops is base_ops
assert MXWeights.__module__ == "smlora.scattermoe.mx_weights"
assert selective_expert_weights.__module__ == "smlora.scattermoe.selective_dequant"
assert flatten_sort_count.__module__ == "smlora.scattermoe.parallel_experts"
"""


@pytest.mark.parametrize("installed", [False, True])
def test_install(tmp_path, installed):
    """In a process of its own, with and without a package called axolotl that has modules of its own."""
    script = IMPORTS
    if installed:
        folder = tmp_path / "axolotl"
        for name in ("integrations", "kernels", "libs", "scattermoe_lora"):
            folder.mkdir()
            (folder / "__init__.py").write_text("")
            folder = folder / name
        folder.mkdir()
        (folder / "__init__.py").write_text("raise ImportError('the original was imported')")
        (folder / "parallel_experts.py").write_text("raise ImportError('the original was imported')")
        (folder / "other.py").write_text("from .parallel_experts import flatten_sort_count\n")
        script += """
from axolotl.integrations.kernels.libs.scattermoe_lora import other
assert other.flatten_sort_count is flatten_sort_count
"""
    path = ":".join([str(tmp_path), *[entry for entry in sys.path if entry]])
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ, PYTHONPATH=path))


def test_forward_mode_is_right_or_refused():
    """torch.no_grad, with which the functions without derivatives run, leaves forward mode on."""
    experts, scattered, offsets = flatten_sort_count(random_choices(T, TOP_K, E), E)
    W, A, B, x = torch.randn(E, K, N), torch.randn(E * R, K), torch.randn(N, E * R), torch.randn(T, K)

    def product(x):
        with torch.no_grad():
            return parallel_linear(x, W, TOP_K, experts, scattered, offsets)

    torch.testing.assert_close(torch.func.jvp(product, (x,), (x.sin(),))[1], product(x.sin()))
    for function in (
        lambda x: ops.scatter2scatter(x, W, experts, scattered, TOP_K),
        lambda x: ops.group(x, scattered, fan_out=TOP_K),
        lambda x: lora_ops.scatter2scatter_lora(x, W, experts, scattered, TOP_K, A, B, SCALING),
        lambda x: lora_ops.group_bwd_lora(torch.zeros(M, N), x.repeat(TOP_K, 1), A, B, offsets, E, SCALING),
    ):
        with pytest.raises(NotImplementedError, match="has no derivatives"):
            torch.func.jvp(function, (x,), (x,))
        with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="has no derivatives"):
            function(torch.autograd.forward_ad.make_dual(x, x))
