"""What torch expects of an operator: opcheck, gradcheck, compilers, checkpointing, autocast, torch.func."""

import pytest
import smlora
import torch
import torch.utils.checkpoint
from reference import Layer, assert_close
from torch.library import opcheck

ops = torch.ops.smlora


def routed(layer):
    return smlora.route(layer.choices, layer.E)


def step(x, A, B, gates, choices, W, E):
    routing = smlora.route(choices, E)
    hidden = smlora.moe_lora_linear(x, W, routing, A, B, scaling=2.0, y_rows="grouped")
    return smlora.moe_lora_linear(
        hidden.sin(), W.transpose(1, 2), routing, B.transpose(1, 2), A.transpose(1, 2), gates=gates, x_rows="grouped",
        y_rows="token"
    )


def step_arguments(layer):
    return layer.x, layer.A, layer.B, layer.gates, layer.choices, layer.W.detach(), layer.E


def gradients(y, layer):
    return torch.autograd.grad(y.square().sum(), (layer.x, layer.A, layer.B, layer.gates))


@pytest.mark.parametrize("y_rows", ["token", "scattered", "grouped"])
def test_gradcheck_in_double(y_rows):
    layer = Layer(dtype=torch.float64, E=3, K=4, N=5, R=2, T=4, y_rows=y_rows, left_out=True)
    routing = routed(layer)
    order = list(layer.leaves())

    def function(*tensors):
        given = dict(zip(order, tensors))
        return smlora.moe_lora_linear(
            given["x"], given["W"], routing, given["A"], given["B"], scaling=layer.scaling, bias=given["bias"],
            gates=given.get("gates"), y_rows=y_rows
        )

    assert torch.autograd.gradcheck(function, tuple(layer.leaves().values()))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("y_rows", [0, 1, 2])
def test_opcheck_of_linear(device, trained, y_rows):
    layer = Layer(device=device, y_rows=["token", "scattered", "grouped"][y_rows])
    tensors = [leaf.detach().requires_grad_(trained) for leaf in (layer.x, layer.W, layer.A, layer.B, layer.bias)]
    gates = layer.gates.detach().requires_grad_(trained) if y_rows == 0 else None
    routing = routed(layer)
    opcheck(ops.linear.default, (*tensors, gates, routing[1], routing[2], layer.top_k, 0, y_rows, 1.5))


def test_opcheck_of_the_raw_operators(device):
    layer = Layer(device=device, y_rows="token")
    x, W, A, B, bias, gates = (leaf.detach() for leaf in layer.leaves().values())
    _, scattered, offsets, k = routed(layer)
    dy = torch.randn(layer.T, layer.N, device=device)
    numbers = (k, 0, 0, 1.5)
    opcheck(ops.route.default, (layer.choices, layer.E, torch.int64))
    opcheck(ops.forward.default, (x, W, A, B, bias, gates, scattered, offsets, *numbers, True))
    opcheck(ops.backward_input.default, (dy, W, A, B, gates, scattered, offsets, x, bias, *numbers, True, True))
    opcheck(ops.backward_lora.default, (x, dy, A, B, gates, scattered, offsets, None, None, *numbers, True, False))
    opcheck(ops.backward_weight.default, (x, dy, W, gates, scattered, offsets, k, 0, 0))
    u, v = (torch.randn(layer.T * k, width, device=device) for width in (5, 4))
    opcheck(ops.outer.default, (u, v, scattered, offsets, k, torch.float32))
    opcheck(ops.backward_bias.default, (dy, gates, scattered, offsets, k, 0))


@pytest.mark.parametrize("trained", [True, False])
def test_opcheck_of_combine_and_group(device, trained):
    layer = Layer(device=device)
    routing = routed(layer)
    gates = layer.gates.detach().requires_grad_(trained)
    y = torch.randn(layer.T * layer.top_k, 8, device=device, requires_grad=trained)
    opcheck(ops.combine.default, (y, gates, layer.top_k))
    opcheck(ops.combine.default, (y, None, layer.top_k))
    x = torch.randn(layer.T, 8, device=device, requires_grad=trained)
    opcheck(ops.group.default, (x, gates, routing[1], routing[2], layer.top_k, 0))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_whole_for_any_number_of_tokens(device, backend):
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend=backend, dynamic=True)
    for T in (7, 12):
        layer = Layer(T=T, device=device, y_rows="token")
        eager, traced = (function(*step_arguments(layer)) for function in (step, compiled))
        assert_close(traced, eager, torch.float32)
        for got, expected in zip(gradients(traced, layer), gradients(eager, layer), strict=True):
            assert_close(got, expected, torch.float32)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_gives_the_same_bits(device, use_reentrant):
    layer = Layer(device=device, y_rows="token")
    plain = gradients(step(*step_arguments(layer)), layer)
    again = torch.utils.checkpoint.checkpoint(step, *step_arguments(layer), use_reentrant=use_reentrant)
    if use_reentrant:  # does not support torch.autograd.grad
        again.square().sum().backward()
        checked = (layer.x.grad, layer.A.grad, layer.B.grad, layer.gates.grad)
    else:
        checked = gradients(again, layer)
    for got, expected in zip(checked, plain, strict=True):
        assert torch.equal(got, expected)


def test_autocast_casts_what_is_wide_and_leaves_adapters(device):
    layer = Layer(device=device, y_rows="token")
    routing = routed(layer)

    def run(x, W, bias):
        return smlora.moe_lora_linear(x, W, routing, layer.A, layer.B, bias=bias, gates=layer.gates, y_rows="token")

    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = run(layer.x, layer.W, layer.bias)
    expected = run(layer.x.bfloat16(), layer.W.bfloat16(), layer.bias.bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    for got, want in zip(gradients(y.float(), layer), gradients(expected.float(), layer), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want)


def test_autocast_casts_adapters_and_gates_of_a_type_that_goes_with_nothing(device):
    layer = Layer(device=device, dtype=torch.float16, y_rows="token")
    routing = routed(layer)

    def run(x, W, A, B, gates):
        return smlora.moe_lora_linear(x, W, routing, A, B, gates=gates, y_rows="token")

    tensors = layer.x, layer.W, layer.A, layer.B, layer.gates
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = run(*tensors)
    assert torch.equal(y, run(*[tensor.bfloat16() for tensor in tensors]))


def test_grad_and_vjp_of_torch_func():
    layer = Layer(y_rows="token")
    x, A, B, gates, *rest = step_arguments(layer)

    def loss(A, B):
        return step(x.detach(), A, B, gates.detach(), *rest).square().sum()

    expected = torch.autograd.grad(loss(A, B), (A, B))
    for got, want in zip(torch.func.grad(loss, argnums=(0, 1))(A.detach(), B.detach()), expected, strict=True):
        assert_close(got, want, torch.float32)
    value, pullback = torch.func.vjp(loss, A.detach(), B.detach())
    for got, want in zip(pullback(torch.ones_like(value)), expected, strict=True):
        assert_close(got, want, torch.float32)


def test_functional_call_of_the_module():
    module = smlora.MoELoRALinear(4, 24, 16, 5)
    routing = smlora.route(torch.tensor([[0, 2], [3, 1]]), 4)
    x = torch.randn(2, 24)
    other = {name: torch.randn_like(value) for name, value in module.named_parameters()}
    got = torch.func.functional_call(module, other, (x, routing))
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(other[name])
    assert torch.equal(got, module(x, routing))


def test_modules_are_saved_and_loaded(tmp_path):
    first, second = (smlora.MoELoRALinear(4, 24, 16, 5) for _ in range(2))
    torch.save(first.state_dict(), tmp_path / "module.pt")
    second.load_state_dict(torch.load(tmp_path / "module.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_meta_tensors_have_the_right_shapes():
    layer = Layer(y_rows="token")
    meta = [leaf.detach().to("meta") for leaf in layer.leaves().values()]
    routing = smlora.route(layer.choices.to("meta"), layer.E)
    x, W, A, B, bias, gates = meta
    y = smlora.moe_lora_linear(x, W, routing, A, B, bias=bias, gates=gates, y_rows="token")
    assert y.shape == (layer.T, layer.N) and y.device.type == "meta"
