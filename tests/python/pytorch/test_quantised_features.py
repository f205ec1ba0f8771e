"""Quantised weights under compilers, checkpointing and autocast."""

import pytest
import smlora
import torch
import torch.utils.checkpoint
from quantised import OPTIONS, digest, random_weight
from quantised_layers import E, K, N, T, Mlp, compare, layer_of, linear, mlp_weights, same, trained, views
from reference import OperatorsSeen
from torch.library import opcheck


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_compiled_whole_with_the_weight_as_an_argument(device, name, backend):
    torch._dynamo.reset()
    weight, layer = random_weight(name, E, N, K, device), layer_of(device, y_rows="token")

    def step(x, A, B, gates, choices, weight):
        routing = smlora.route(choices, E)
        return smlora.moe_lora_linear(x, weight.transpose(1, 2), routing, A, B, scaling=2.0, gates=gates, y_rows="token").sin()

    arguments = layer.x, layer.A, layer.B, layer.gates
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    results = []
    for function in (compiled, step):
        y = function(*arguments, layer.choices, weight)
        results.append((y, *torch.autograd.grad(y.square().sum(), arguments)))
    torch.testing.assert_close(*results)


def test_a_compiled_function_may_give_a_weight_back(device):
    torch._dynamo.reset()
    weight = random_weight("nvfp4", E, N, K, device)
    compiled = torch.compile(lambda weight: weight[1:3].transpose(1, 2), fullgraph=True, backend="aot_eager")
    part = compiled(weight)
    assert part.format == weight[1:3].transpose(1, 2).format and digest(part) == digest(weight[1:3])


def test_a_compiled_function_may_make_a_weight(device):
    torch._dynamo.reset()
    weight = random_weight("mxfp4", E, N, K, device)
    compiled = torch.compile(lambda codes, scales: smlora.from_mxfp4(codes, scales).dequantize(torch.float32), fullgraph=True,
                             backend="aot_eager")
    assert torch.equal(compiled(weight.codes, weight.scales), weight.dequantize(torch.float32))


def test_the_mlp_compiled_whole(device):
    torch._dynamo.reset()
    layer, weights = Mlp(device), mlp_weights("nf4_double", device)
    compiled = torch.compile(lambda up, down: layer(up, down), fullgraph=True, backend="inductor")
    results = []
    for function in (compiled, layer):
        out = function(*weights)
        results.append((out, *torch.autograd.grad(out.square().sum(), layer.leaves())))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(device, use_reentrant):
    weight, layer = views("mxfp8", device, True), layer_of(device)

    def projection(x, A, B, weight):
        return smlora.moe_lora_linear(x, weight, smlora.route(layer.choices, E), A, B).sin()

    arguments = layer.x, layer.A, layer.B
    results = []
    for y in (projection(*arguments, weight),
              torch.utils.checkpoint.checkpoint(projection, *arguments, weight, use_reentrant=use_reentrant)):
        for leaf in arguments:
            leaf.grad = None
        y.square().sum().backward()
        results.append([y, *(leaf.grad for leaf in arguments)])
    same(*results)


def test_autocast_decodes_to_its_type(device):
    weight, layer = views("fp8", device, True), layer_of(device, dtype=torch.float32)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        got, expected = linear(layer, weight), linear(layer, weight.dequantize(torch.bfloat16))
    assert got.dtype == torch.bfloat16
    compare([[got], [expected]], device, torch.bfloat16)


def test_opcheck(device):
    layer = layer_of(device, y_rows="token")
    weight = views("nf4_double", device, True)
    codes, parts, numbers = weight.operands()
    _, scattered, offsets, k = smlora.route(layer.choices, E)
    x, A, B, bias, gates = trained(layer)
    opcheck(torch.ops.smlora.linear.default, (x, codes, A, B, bias, gates, scattered, offsets, k, 0, 0, 0.5, parts, numbers))
    x, A, B, bias, gates = (leaf.detach() for leaf in trained(layer))
    dy = torch.randn(T, N, device=device)
    opcheck(torch.ops.smlora.forward.default,
            (x, codes, A, B, bias, gates, scattered, offsets, k, 0, 0, 0.5, True, parts, numbers))
    opcheck(torch.ops.smlora.backward_input.default,
            (dy, codes, A, B, gates, scattered, offsets, x, bias, k, 0, 0, 0.5, True, True, parts, numbers))


def test_operators_get_the_codes(device):
    weight, layer = views("nf4", device, True), layer_of(device)
    with OperatorsSeen() as seen:
        linear(layer, weight)
    assert "dequantize" not in seen.results and "forward" in seen.results
