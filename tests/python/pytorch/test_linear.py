"""moe_lora_linear against the same written out in plain torch."""

import itertools

import pytest
import smlora
import torch
from reference import Layer, OperatorsSeen, assert_close, error, linear, random_choices


def run(layer, **changes):
    routing = smlora.route(layer.choices, layer.E)
    arguments = dict(
        scaling=layer.scaling,
        bias=layer.bias,
        gates=layer.gates if layer.uses_gates else None,
        x_rows=layer.x_rows,
        y_rows=layer.y_rows,
    )
    return smlora.moe_lora_linear(layer.x, layer.weight, routing, layer.A, layer.B, **(arguments | changes)), routing


def check_with_gradients(layer, factor=1.0):
    y, routing = run(layer)
    expected, leaves = linear(layer, routing)
    assert y.dtype == layer.dtype
    assert_close(y, expected, layer.dtype, "y", factor)
    dy = torch.randn(y.shape, dtype=torch.float64, device=y.device).to(y.dtype)
    got = torch.autograd.grad(y, list(layer.leaves().values()), dy)
    wanted = torch.autograd.grad(expected, list(leaves.values()), dy.double())
    # Gradients of adapters are products with rank rows, which are rounded before: of few ranks this does not average out.
    factors = {"A": 1.5 * factor, "B": 1.5 * factor}
    for name, gradient, reference in zip(leaves, got, wanted, strict=True):
        assert gradient.dtype == layer.leaves()[name].dtype
        assert_close(gradient, reference, layer.dtype, f"gradient of {name}", factors.get(name, factor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("x_rows, y_rows", list(itertools.product(["token", "scattered", "grouped"], repeat=2)))
def test_outputs_and_gradients(device, dtype, x_rows, y_rows):
    if dtype == torch.float64 and device.type == "cuda":
        pytest.skip("float64 is for the CPU")
    check_with_gradients(Layer(dtype=dtype, x_rows=x_rows, y_rows=y_rows, device=device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("y_rows", ["token", "grouped"])
def test_weights_as_hugging_face_stores_them(device, dtype, y_rows):
    check_with_gradients(Layer(dtype=dtype, y_rows=y_rows, enk=True, device=device))


@pytest.mark.parametrize("R", [1, 8, 9, 64])
def test_ranks(device, R):
    check_with_gradients(Layer(R=R, dtype=torch.bfloat16, y_rows="token", device=device))


def test_weight_gradients_wider_than_one_slab(device):
    check_with_gradients(Layer(K=600, N=40, T=40, device=device))


def test_left_out_entries_take_part_in_nothing(device):
    layer = Layer(left_out=True, T=40, y_rows="scattered", device=device)
    check_with_gradients(layer)
    y, _ = run(layer)
    assert torch.count_nonzero(y[layer.choices.flatten() < 0]) == 0
    check_with_gradients(Layer(left_out=True, T=40, y_rows="token", device=device))


def test_adapters_in_fp32_beside_bf16(device):
    # On a GPU the adapter, too, is rounded to bf16, and the ranks are too few for its roundings to average out.
    check_with_gradients(
        Layer(dtype=torch.bfloat16, adapter_dtype=torch.float32, gate_dtype=torch.float32, y_rows="token", device=device),
        factor=1.5,
    )


@pytest.mark.parametrize("layout", ["expert_major", "peft", "peft_transposed"])
def test_adapters_as_they_are_stored(device, layout):
    layer = Layer(device=device)
    E, K, N, R = layer.E, layer.K, layer.N, layer.R
    first, last = (N, K) if layout == "peft_transposed" else (K, N)
    stored_a = torch.randn(E * R, first, device=device, requires_grad=True)
    stored_b = torch.randn(last, E * R, device=device, requires_grad=True)
    A, B = smlora.adapter_views(stored_a, stored_b, E, layout=layout)
    with torch.no_grad():
        for e in range(E):
            columns = [e * R + r for r in range(R)] if layout == "expert_major" else [r * E + e for r in range(R)]
            delta = stored_b[:, columns] @ stored_a[e * R : (e + 1) * R]
            assert error(B[e] @ A[e], delta.T if layout == "peft_transposed" else delta) < 1e-6
    layer.A, layer.B = A.detach(), B.detach()
    routing = smlora.route(layer.choices, E)
    y = smlora.moe_lora_linear(layer.x, layer.weight, routing, A, B, scaling=layer.scaling, bias=layer.bias)
    expected, leaves = linear(layer, routing)
    dy = torch.randn_like(y)
    dA, dB = torch.autograd.grad(y, (stored_a, stored_b), dy)
    want_a, want_b = torch.autograd.grad(expected, (leaves["A"], leaves["B"]), dy.double())
    got_a, got_b = smlora.adapter_views(dA, dB, E, layout=layout)
    assert_close(got_a, want_a, torch.float32)
    assert_close(got_b, want_b, torch.float32)


def test_base_product_without_an_adapter(device):
    layer = Layer(device=device)
    routing = smlora.route(layer.choices, layer.E)
    base = smlora.moe_lora_linear(layer.x, layer.W, routing)
    silent = smlora.moe_lora_linear(layer.x, layer.W, routing, layer.A, layer.B, scaling=0.0)
    assert torch.equal(base, silent)
    with torch.no_grad():
        layer.A.zero_()
        layer.bias.zero_()
    expected, _ = linear(layer, routing)
    assert_close(base, expected, torch.float32)


def test_no_tokens(device):
    layer = Layer(T=0, y_rows="token", device=device)
    y, _ = run(layer)
    assert y.shape == (0, layer.N)
    for name, gradient in zip(layer.leaves(), torch.autograd.grad(y.sum(), list(layer.leaves().values()))):
        assert torch.count_nonzero(gradient) == 0, name


def test_an_expert_without_rows_gets_gradients_that_are_exactly_zero(device):
    layer = Layer(dtype=torch.bfloat16, device=device)
    layer.choices[:] = torch.tensor([1, 3], device=device)
    y, _ = run(layer)
    dA, dB, dW = torch.autograd.grad(y.sum(), (layer.A, layer.B, layer.W))
    for gradient in (dA, dB, dW):
        assert torch.count_nonzero(gradient[[0, 2, 4]]) == 0
        assert torch.count_nonzero(gradient[[1, 3]]) > 0


def test_the_same_call_gives_the_same_bits(device):
    layer = Layer(dtype=torch.bfloat16, T=64, y_rows="token", device=device)

    def step():
        y, _ = run(layer)
        return y, *torch.autograd.grad(y.float().sum(), list(layer.leaves().values()))

    for first, second in zip(step(), step(), strict=True):
        assert torch.equal(first, second)


def test_gradients_of_any_strides_are_taken(device):
    layer = Layer(device=device)
    y, _ = run(layer)
    expanded = torch.autograd.grad(y.sum(), layer.A, retain_graph=True)[0]
    one_row = torch.autograd.grad(y.sum(0).sum(), layer.A, retain_graph=True)[0]
    row = torch.autograd.grad(y, layer.A, torch.ones_like(y[0]).expand(y.shape), retain_graph=True)[0]
    dense = torch.autograd.grad(y, layer.A, torch.ones_like(y), retain_graph=True)[0]
    transposed = torch.autograd.grad(y, layer.A, torch.ones_like(y.T).contiguous().T)[0]
    for gradient in (expanded, one_row, row, transposed):
        assert torch.equal(gradient, dense)


def test_inputs_of_any_strides_are_taken(device):
    layer = Layer(device=device)
    routing = smlora.route(layer.choices, layer.E)

    def y(x):
        return smlora.moe_lora_linear(x, layer.W, routing, layer.A, layer.B)

    wide = torch.cat([layer.x, layer.x], 1)[:, : layer.K]
    for x in (layer.x.T.contiguous().T, wide):
        assert torch.equal(y(x), y(layer.x))
    row = layer.x[:1].expand(layer.x.shape)
    assert torch.equal(y(row), y(row.contiguous()))


@pytest.mark.parametrize("trained", ["x", "A", "B", "W", "bias", "gates"])
def test_what_is_frozen_is_neither_computed_nor_kept(trained):
    """Only the operators that the trained tensor needs are called, and no activation is kept that it does not need."""
    layer = Layer(y_rows="token")
    for name, leaf in layer.leaves().items():
        leaf.requires_grad_(name == trained)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        y, _ = run(layer)
    with OperatorsSeen() as seen:
        (gradient,) = torch.autograd.grad(y.sum(), layer.leaves()[trained])
    wanted = {
        "x": {"backward_input"},
        "gates": {"backward_input"},
        "A": {"backward_lora"},
        "B": {"backward_lora"},
        "W": {"backward_weight"},
        "bias": {"backward_bias"},
    }[trained]
    assert set(seen.results) == wanted
    if trained in ("A", "B"):
        other = seen.results["backward_lora"][1 if trained == "A" else 0]
        assert other.numel() == 0
    assert (layer.x.data_ptr() in kept) == (trained not in ("x", "bias"))
    assert (layer.W.data_ptr() in kept) == (trained in ("x", "gates", "W"))
    reference = linear(layer, smlora.route(layer.choices, layer.E))
    (expected,) = torch.autograd.grad(reference[0].sum(), reference[1][trained])
    assert_close(gradient, expected, torch.float32)


def test_module_starts_as_its_base_and_trains_its_adapter(device):
    module = smlora.MoELoRALinear(4, 24, 16, 5, lora_alpha=10, bias=True, device=device)
    choices = random_choices(9, 2, 4, device)
    x, gates = torch.randn(9, 24, device=device), torch.rand(9, 2, device=device)
    routing = smlora.route(choices, 4)
    y = module(x, routing, gates, y_rows="token")
    base = sum(
        gates[:, j, None] * (torch.einsum("tk,tnk->tn", x, module.weight[choices[:, j]]) + module.bias[choices[:, j]])
        for j in range(2)
    )
    assert_close(y, base, torch.float32)
    assert module.scaling == 2.0
    assert [name for name, parameter in module.named_parameters() if parameter.requires_grad] == ["lora_A", "lora_B"]
    y.sum().backward()
    assert torch.count_nonzero(module.lora_B.grad) > 0
    assert module.weight.grad is None


def test_module_without_an_adapter():
    module = smlora.MoELoRALinear(4, 24, 16, 0)
    assert module.lora_A is None
    assert module(torch.randn(3, 24), smlora.route(random_choices(3, 2, 4), 4)).shape == (6, 16)


WRONG = [
    (dict(x=torch.zeros(24)), r"x: expected a tensor \[rows, K\], got \[24\]"),
    (dict(x=[1.0]), r"x: expected a tensor \[rows, K\], got \[1.0\] of type list"),
    (dict(x=torch.zeros(11, 16)), r"x: expected K = 24 columns for a weight \[E, K, N\], got 16; .*transpose\(1, 2\)"),
    (dict(x=torch.zeros(11, 24, dtype=torch.int8)), "x: expected a tensor of bfloat16.*got torch.int8"),
    (dict(weight=torch.zeros(24, 16)), r"weight: expected a tensor \[E, K, N\], got \[24, 16\]"),
    (dict(weight=torch.zeros(4, 24, 16)), r"weight: expected \[E, K, N\] = \[5, 24, 16\], got \[4, 24, 16\]"),
    (dict(lora_A=torch.zeros(5, 3, 23)), r"lora_A: expected \[E, R, K\] = \[5, 3, 24\], got \[5, 3, 23\]"),
    (dict(lora_A=torch.zeros(3, 24)), r"lora_A: expected a tensor \[E, R, in\], got \[3, 24\]"),
    (dict(lora_A=torch.zeros(5, 300, 24)), "rank of lora_A: expected 0 to 256, got 300"),
    (dict(lora_A=torch.zeros(5, 3, 24, dtype=torch.float16)), "lora_A: expected fp32 .*, got fp16"),
    (dict(lora_B=torch.zeros(5, 3, 16)), r"lora_B: expected \[E, N, R\] = \[5, 16, 3\], got \[5, 3, 16\]"),
    (dict(lora_B=None), "lora_A, lora_B: expected both or neither, got lora_A without lora_B"),
    (dict(lora_A=None), "lora_A, lora_B: expected both or neither, got lora_B without lora_A"),
    (dict(routing=torch.zeros(11, 2)), r"routing: expected a Routing.*, got \[11, 2\]"),
    (dict(scaling="2x"), "scaling: expected a number, got '2x' of type str"),
    (dict(bias=torch.zeros(16)), r"bias: expected \[E, N\] = \[5, 16\], got \[16\]"),
    (dict(gates=torch.zeros(11, 2)), "gates: expected none unless y_rows is \"token\", got some with y_rows='scattered'"),
    (dict(gates=torch.zeros(11, 2).int(), y_rows="token"), "gates: expected fp32 .*, got int32"),
    (dict(x_rows=["token"]), "x_rows: expected \"token\""),
    (dict(y_rows="tokens"), "y_rows: expected \"token\".*got 'tokens'"),
]


@pytest.mark.parametrize("wrong, message", WRONG)
def test_errors_name_the_argument(wrong, message):
    layer = Layer()
    arguments = dict(x=layer.x, weight=layer.W, routing=smlora.route(layer.choices, layer.E), lora_A=layer.A,
                     lora_B=layer.B)
    with pytest.raises(ValueError, match=message):
        smlora.moe_lora_linear(**arguments | wrong)


def test_the_module_and_the_views_name_what_is_wrong():
    with pytest.raises(ValueError, match="rank: expected 0 to 256, got 300"):
        smlora.MoELoRALinear(4, 24, 16, 300)
    with pytest.raises(ValueError, match="num_experts: expected 1 to 1024, got 0"):
        smlora.MoELoRALinear(0, 24, 16, 3)
    with pytest.raises(ValueError, match=r"lora_A: expected a tensor \[E \* R, in\], got \[5, 3, 24\]"):
        smlora.adapter_views(torch.zeros(5, 3, 24), torch.zeros(16, 15), 5)
    with pytest.raises(ValueError, match=r"lora_A, lora_B: expected .* with E = 5, got \[14, 24\] and \[16, 14\]"):
        smlora.adapter_views(torch.zeros(14, 24), torch.zeros(16, 14), 5)


@pytest.mark.parametrize("argument", ["weight", "lora_A", "routing.expert_offsets"])
def test_tensors_on_another_device_are_refused(argument):
    """Tensors without memory stand in for those of another device, which would be read at addresses of its own."""
    layer = Layer()
    routing = smlora.route(layer.choices, layer.E)
    arguments = {"weight": layer.W, "lora_A": layer.A, "lora_B": layer.B}
    if argument in arguments:
        arguments[argument] = arguments[argument].to("meta")
    else:
        routing = routing._replace(expert_offsets=routing.expert_offsets.to("meta"))
    name = argument.removeprefix("routing.")
    with pytest.raises(ValueError, match=f"{name}: expected a tensor on cpu, where x is, got one on meta"):
        smlora.moe_lora_linear(layer.x, routing=routing, **arguments)
