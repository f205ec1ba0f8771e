"""Projections of quantised weights against the same call on the decoded weight."""

import dataclasses

import pytest
import smlora
import smlora.scattermoe as scattermoe
import torch
from quantised import OPTIONS, digest, random_weight
from quantised_layers import E, K, N, R, T, TOP_K, Mlp, compare, layer_of, linear, mlp_weights, same, trained, views
from reference import random_choices


# ---- outputs and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enk", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPTIONS)
def test_linear_is_that_of_the_decoded_weight(device, name, dtype, enk):
    weight = views(name, device, enk)
    layer = layer_of(device, dtype=dtype, y_rows="token", left_out=True)
    results = []
    for operand in (weight, weight.dequantize(dtype)):
        y = linear(layer, operand)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), trained(layer))))
    compare(results, device, dtype)


@pytest.mark.parametrize("x_rows, y_rows", [("token", "grouped"), ("scattered", "scattered"), ("grouped", "token")])
def test_linear_in_other_orders_of_rows(device, x_rows, y_rows):
    weight = views("nf4", device, True)
    layer = layer_of(device, x_rows=x_rows, y_rows=y_rows)
    results = []
    for operand in (weight, weight.dequantize(torch.float32)):
        y = linear(layer, operand)
        results.append((y, *torch.autograd.grad(y.square().sum(), trained(layer))))
    compare(results, device, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
def test_mlp_is_that_of_the_decoded_weights(device, name, dtype):
    layer = Mlp(device, dtype)
    weights = mlp_weights(name, device)
    results = []
    for operands in (weights, [weight.dequantize(dtype) for weight in weights]):
        out = layer(*operands)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), layer.leaves())))
    compare(results, device, dtype)


@pytest.mark.parametrize("quantised", [(True, False), (False, True)])
def test_mlp_of_one_quantised_and_one_plain_weight(device, quantised):
    layer = Mlp(device)
    weights = mlp_weights("nvfp4", device)
    plain = [weight.dequantize(torch.float32).requires_grad_() for weight in weights]
    mixed = [weight if keep else values for weight, values, keep in zip(weights, plain, quantised)]
    (wanted,) = (values for values, keep in zip(plain, quantised) if not keep)
    results = []
    for operands in (mixed, plain):
        out = layer(*operands)
        results.append((out, *torch.autograd.grad(out.square().sum(), [*layer.leaves(), wanted])))
    compare(results, device, torch.float32)


@pytest.mark.parametrize("wanted", ["x", "A", "B", "bias", "gates"])
def test_a_single_gradient(device, wanted):
    weight = views("mxfp4", device, True)
    layer = layer_of(device, y_rows="token")
    for name, leaf in layer.leaves().items():
        leaf.requires_grad_(name == wanted)
    results = [torch.autograd.grad(linear(layer, operand).square().sum(), layer.leaves()[wanted])
               for operand in (weight, weight.dequantize(torch.float32))]
    compare(results, device, torch.float32)


def test_base_product_without_an_adapter(device):
    weight, layer = views("int4", device, False), layer_of(device)
    routing = smlora.route(layer.choices, E)
    with torch.no_grad():
        got = smlora.moe_lora_linear(layer.x, weight, routing)
        expected = smlora.moe_lora_linear(layer.x, weight.dequantize(torch.float32), routing)
    compare([[got], [expected]], device, torch.float32)


def test_slices_of_experts_are_weights(device):
    weight = random_weight("mxfp4", 2 * E, K, N, device)
    layer = layer_of(device)
    same([linear(layer, weight[E:])], [linear(layer, smlora.from_mxfp4(weight.codes[E:], weight.scales[E:]))])


def test_nothing_is_written_and_no_decoded_weight_is_kept(device):
    weight, layer = views("nf4_double", device, True), layer_of(device, y_rows="token")
    before, kept = digest(weight), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = linear(layer, weight)
    y.square().sum().backward()
    assert digest(weight) == before
    assert not any(tensor.is_floating_point() and tensor.numel() >= E * K * N for tensor in kept)
    assert any(tensor is weight.codes or tensor.data_ptr() == weight.codes.data_ptr() for tensor in kept)


def test_what_needs_no_weight_does_not_keep_it(device):
    weight, layer = views("nf4", device, True), layer_of(device)
    for leaf in (layer.x, layer.A, layer.B):
        leaf.requires_grad_(False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        linear(layer, weight)
    assert not {tensor.data_ptr() for tensor in kept} & {tensor.data_ptr() for tensor in weight.tensors().values()}


# ---- derivatives of derivatives, transforms ---------------------------------------------------------------------------


def of_both(function, weight):
    return function(weight), function(weight.dequantize(torch.float32))


@pytest.mark.parametrize("y_rows", ["token", "grouped"])
def test_second_derivatives(device, y_rows):
    weight, layer = views("mxfp4", device, True), layer_of(device, y_rows=y_rows)

    def second(operand):
        leaves = trained(layer)[: 5 if y_rows == "token" else 4]
        first = torch.autograd.grad(linear(layer, operand).sin().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in first), leaves)

    compare(of_both(second, weight), device, torch.float32)


def test_second_derivatives_of_the_mlp(device):
    layer, weights = Mlp(device), mlp_weights("nvfp4", device)

    def second(operands):
        first = torch.autograd.grad(layer(*operands).sin().sum(), layer.leaves(), create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in first), layer.leaves())

    compare([second(weights), second([weight.dequantize(torch.float32) for weight in weights])], device, torch.float32)


@pytest.mark.parametrize("name", ["nf4_double", "fp8"])
def test_forward_mode_and_transforms_of_torch_func(device, name):
    weight, layer = views(name, device, True), layer_of(device)
    routing = smlora.route(layer.choices, E)
    primals = tuple(leaf.detach() for leaf in (layer.x, layer.A, layer.B))
    tangents = tuple(torch.randn_like(primal) for primal in primals)

    def function(operand):
        return lambda x, A, B: smlora.moe_lora_linear(x, operand, routing, A, B, scaling=0.5)

    def everything(operand):
        f = function(operand)
        y, ty = torch.func.jvp(f, primals, tangents)
        _, pullback = torch.func.vjp(f, *primals)
        hessian = torch.func.jvp(torch.func.grad(lambda *p: f(*p).sin().sum()), primals, tangents)
        rows = torch.func.vmap(lambda x: f(x, *primals[1:]))(torch.stack([primals[0], tangents[0]]))
        return y, ty, *pullback(ty), *hessian, rows

    torch.testing.assert_close(*of_both(everything, weight))


def test_forward_mode_of_the_mlp(device):
    layer, weights = Mlp(device), mlp_weights("fp8", device)
    tangent = torch.randn_like(layer.x)

    def tangents(operands):
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            x, layer.x = layer.x, torch.autograd.forward_ad.make_dual(layer.x.detach(), tangent)
            out = torch.autograd.forward_ad.unpack_dual(layer(*operands))
            layer.x = x
            return tuple(out)

    torch.testing.assert_close(tangents(weights), tangents([weight.dequantize(torch.float32) for weight in weights]))


def test_gradients_of_a_batch(device):
    weight, layer = views("nvfp4", device, True), layer_of(device)
    y = linear(layer, weight)
    batch = torch.randn(2, *y.shape, device=device)
    batched = torch.autograd.grad(y, trained(layer), batch, is_grads_batched=True, retain_graph=True)
    for i, dy in enumerate(batch):
        torch.testing.assert_close([gradient[i] for gradient in batched],
                                   list(torch.autograd.grad(y, trained(layer), dy, retain_graph=True)))


# ---- the module -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_the_module_trains_and_comes_back_from_its_state(device, name):
    weight = random_weight(name, E, N, K, device)
    module = smlora.MoELoRALinear(E, K, N, R, weight=weight, bias=True, dtype=torch.float32, device=device)
    with torch.no_grad():
        module.lora_B.normal_()
    routing = smlora.route(random_choices(T, TOP_K, E, device), E)
    x = torch.randn(T, K, device=device)
    before = digest(module.weight())
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    first = module(x, routing)
    values = weight.dequantize(torch.float32).transpose(1, 2)
    expected = smlora.moe_lora_linear(x, values, routing, module.lora_A, module.lora_B, scaling=module.scaling,
                                      bias=module.bias)
    compare([[first], [expected]], device, torch.float32)
    first.square().sum().backward()
    optimiser.step()
    assert digest(module.weight()) == before and not torch.equal(module(x, routing), first)
    other = smlora.MoELoRALinear(E, K, N, R, weight=random_weight(name, E, N, K, device), bias=True, dtype=torch.float32,
                                 device=device)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x, routing), module(x, routing))
    module.reset_parameters()
    assert digest(module.weight()) == before


def test_the_module_compiled_whole(device):
    torch._dynamo.reset()
    weight = random_weight("mxfp4", E, N, K, device)
    module = smlora.MoELoRALinear(E, K, N, R, weight=weight, dtype=torch.float32, device=device)
    routing = smlora.route(random_choices(T, TOP_K, E, device), E)
    x = torch.randn(T, K, device=device)
    torch.testing.assert_close(torch.compile(module, fullgraph=True)(x, routing), module(x, routing))


# ---- the drop-in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mxfp4", "nf4_double", "fp8"])
def test_the_drop_in_takes_quantised_weights(device, name):
    weight, layer = views(name, device, True), layer_of(device, dtype=torch.bfloat16)
    experts, scattered, offsets = scattermoe.flatten_sort_count(layer.choices, E)
    A = torch.randn(E * R, K, device=device, dtype=torch.bfloat16, requires_grad=True)
    B = torch.randn(N, E * R, device=device, dtype=torch.bfloat16, requires_grad=True)
    gates = layer.gates.float()
    results = []
    for operand in (weight, weight.dequantize(torch.bfloat16)):
        y = scattermoe.parallel_linear_lora(layer.x, operand, TOP_K, experts, scattered, offsets, A, B, 0.5, gates=gates)
        base = scattermoe.parallel_linear(layer.x, operand, TOP_K, experts, scattered, offsets)
        with torch.no_grad():
            inference = scattermoe.parallel_linear(layer.x, operand, TOP_K, experts, scattered, offsets)
        ops = scattermoe.kernels.lora_ops
        adapted = ops.scatter2scatter_lora(layer.x.detach(), operand, experts, scattered, TOP_K, A, B, 0.5)
        dx = ops.scatter2scatter_lora_dX(adapted, operand, experts, scattered, 1, A, B, 0.5, dy_grouped=False)
        results.append((y, base, inference, adapted, dx, *torch.autograd.grad(y.float().square().sum(), (layer.x, A, B))))
    compare(results, device, torch.bfloat16)


# ---- errors -----------------------------------------------------------------------------------------------------------


def test_a_gradient_of_a_quantised_weight_is_refused(device):
    stored, layer = random_weight("fp8", E, N, K, device), layer_of(device)
    weight = smlora.from_fp8(stored.codes.requires_grad_(), stored.scales, stored.block, stored.parts).transpose(1, 2)
    message = "codes: expected a tensor that needs no gradient, as a quantised weight is frozen, got .*requires_grad=True"
    with pytest.raises(ValueError, match=f"weight.{message}"):
        linear(layer, weight)
    up, down = mlp_weights("fp8", device)
    down.codes.requires_grad_()
    with pytest.raises(ValueError, match=f"down.{message}"):
        Mlp(device)(up, down)
    with torch.no_grad():
        linear(layer, weight)


def test_errors_name_the_argument(device):
    weight, layer = views("mxfp4", device, True), layer_of(device)
    routing = smlora.route(layer.choices, E)
    with pytest.raises(ValueError, match=r"x: expected K = 32 columns for a weight \[E, K, N\], got 64; .*transpose\(1, 2\)"):
        smlora.moe_lora_linear(layer.x, weight.transpose(1, 2), routing)
    broken = smlora.QuantizedWeight("mxfp4", E, N, K, weight.codes, weight.scales[:, :, :1], block=32).transpose(1, 2)
    with pytest.raises(ValueError, match=r"weight.scales: expected \[E, rows, columns / block\] = \[5, 32, 2\], got"):
        smlora.moe_lora_linear(layer.x, broken, routing)
    unchecked = smlora.QuantizedWeight("mxfp4", E, N, K, weight.codes, weight.scales, block=32, table=layer.x[0, :16].detach())
    with pytest.raises(ValueError, match=r"weight.table: expected None with encoding mxfp4, got \[16\]"):
        smlora.moe_lora_linear(layer.x, unchecked.transpose(1, 2), routing)
    double = views("nf4_double", device, False)
    for changes, message in [
        ({"table": None}, "weight.table: expected a tensor with encoding nf4, got None"),
        ({"outer_scales": None}, "weight.outer_scales: expected a tensor with encoding nf4, got None"),
        ({"codes": None}, "weight.codes: expected a tensor with encoding nf4, got None"),
        ({"encoding": "nf5"}, "weight.encoding: expected one of nf4, fp4, .*, got 'nf5'"),
        ({"encoding": "plain"}, "weight.encoding: expected one of nf4, fp4, .*, got 'plain'"),
        ({"global_scale": "product"}, 'weight.global_scale: expected "factor" or "divisor", got \'product\''),
    ]:
        wrong = dataclasses.replace(double, **changes)
        for call in (lambda: smlora.moe_lora_linear(layer.x, wrong, routing), lambda: smlora.dequantize(wrong, torch.float32)):
            with pytest.raises(ValueError, match=message):
                call()
    with pytest.raises(ValueError, match=r"gate_up.scales: expected \[E, rows"):
        smlora.moe_lora_mlp(layer.x, broken, mlp_weights("nf4", device, I=16)[1], routing)
    parts = dataclasses.replace(weight, parts=5)
    with pytest.raises(ValueError, match="^weight.parts: expected a divisor of rows = 32, got 5"):
        smlora.moe_lora_linear(layer.x, parts, routing)
    with pytest.raises(ValueError, match="^down.parts: expected a divisor of rows = 64, got 5"):
        up, down = mlp_weights("mxfp4", device)
        smlora.moe_lora_mlp(layer.x, up, dataclasses.replace(down, parts=5), routing)
    with pytest.raises(ValueError, match=r"lora_A: expected \[E, R, K\] = \[5, 3, 64\], got \[5, 3, 63\]"):
        smlora.moe_lora_linear(layer.x, weight, routing, layer.A[:, :, 1:], layer.B)
    with pytest.raises(ValueError, match="expected .*bf16, fp16 or fp32.*fp64"):
        smlora.moe_lora_linear(layer.x.double(), weight, routing)
    with pytest.raises(ValueError, match=r"weight: expected a tensor on (cpu|cuda:0), where x is, got one on meta"):
        smlora.moe_lora_linear(layer.x, weight.to("meta"), routing)


def test_the_module_names_what_is_wrong():
    weight = random_weight("mxfp4", E, N, K)
    with pytest.raises(ValueError, match=r"weight: expected a QuantizedWeight \[5, 64, 32\], got .*shape=\[5, 32, 64\]"):
        smlora.MoELoRALinear(E, N, K, R, weight=weight)
    with pytest.raises(ValueError, match=r"weight: expected a QuantizedWeight .*, got \[5, 32, 64\]"):
        smlora.MoELoRALinear(E, K, N, R, weight=torch.zeros(E, N, K))
