"""Projections of quantised weights against the same call on the decoded weight."""

import dataclasses

import pytest
import smlora
import smlora.scattermoe as scattermoe
import torch
import torch.utils.checkpoint
from quantised import OPTIONS, digest, random_weight
from reference import Layer, OperatorsSeen, random_choices
from torch.library import opcheck

E, K, N, R, T, TOP_K = 5, 64, 32, 3, 11, 2


def layer_of(device, **changes):
    return Layer(E=E, K=K, N=N, R=R, T=T, top_k=TOP_K, device=device, **changes)


def linear(layer, weight, **changes):
    arguments = dict(scaling=layer.scaling, bias=layer.bias, gates=layer.gates if layer.uses_gates else None,
                     x_rows=layer.x_rows, y_rows=layer.y_rows)
    return smlora.moe_lora_linear(layer.x, weight, smlora.route(layer.choices, E), layer.A, layer.B, **(arguments | changes))


def trained(layer):
    return [leaf for name, leaf in layer.leaves().items() if name != "W"]


def views(name, device, enk):
    """A quantised weight [E, K, N], stored so or as [E, N, K]."""
    return random_weight(name, E, N, K, device).transpose(1, 2) if enk else random_weight(name, E, K, N, device)


class Mlp:
    """The arguments of moe_lora_mlp but for the weights."""

    def __init__(self, device, dtype=torch.float32, I=32):
        def leaf(*shape):
            return (torch.randn(shape, dtype=torch.float64) * shape[-1] ** -0.5).to(device, dtype).requires_grad_()

        self.x = leaf(T, K)
        self.gates = torch.rand(T, TOP_K, device=device).requires_grad_()
        self.adapters = [leaf(E, R, K), leaf(E, 2 * I, R), leaf(E, R, I), leaf(E, K, R)]
        self.biases = [leaf(E, 2 * I), leaf(E, K)]
        self.choices = random_choices(T, TOP_K, E, device)

    def leaves(self):
        return [self.x, self.gates, *self.adapters, *self.biases]

    def __call__(self, up, down):
        A1, B1, A2, B2 = self.adapters
        return smlora.moe_lora_mlp(
            self.x, up, down, smlora.route(self.choices, E), self.gates, gate_up_lora=(A1, B1, 2.0), down_lora=(A2, B2, 0.5),
            gate_up_bias=self.biases[0], down_bias=self.biases[1]
        )


def mlp_weights(name, device, I=32):
    return (random_weight(name, E, 2 * I, K, device).transpose(1, 2), random_weight(name, E, K, I, device).transpose(1, 2))


def same(got, expected):
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


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


def compare(results, device, dtype):
    """The CPU computes the same sums; a GPU's kernels of quantised weights may order them otherwise."""
    for got, expected in zip(*results, strict=True):
        if device.type == "cpu":
            assert torch.equal(got, expected)
        else:
            error = (got - expected).double().norm() / expected.double().norm()
            assert error <= {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 1e-3}[dtype]


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


# ---- compilers, checkpoints, autocast ---------------------------------------------------------------------------------


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
