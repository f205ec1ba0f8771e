"""gated_activation and moe_lora_mlp against plain torch."""

import random

import pytest
import smlora
import torch
import torch.nn.functional as F
from reference import OperatorsSeen, assert_close, random_choices
from torch.library import opcheck

KINDS = ["swiglu", "geglu", "geglu_tanh", "reglu", "swiglu_clamped"]
# No 16-bit number is the limit: versions of torch differ in the gradient of a clamp there.
ALPHA, LIMIT = 1.3, 1.4995


def plain_activation(h, activation):
    gate, up = (h[:, ::2], h[:, 1::2]) if activation.interleaved else h.chunk(2, 1)
    if activation.kind == "swiglu_clamped":
        gate, up = gate.clamp(max=activation.limit), up.clamp(-activation.limit, activation.limit)
        return gate * torch.sigmoid(activation.alpha * gate) * (up + 1)
    function = {
        "swiglu": F.silu,
        "geglu": F.gelu,
        "geglu_tanh": lambda gate: F.gelu(gate, approximate="tanh"),
        "reglu": F.relu,
    }[activation.kind]
    return function(gate) * up


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_activations(device, kind, interleaved, dtype):
    activation = smlora.Activation(kind, interleaved, ALPHA, LIMIT)
    h = torch.randn(40, 2 * 72, device=device).to(dtype).requires_grad_()
    wide = h.detach().double().requires_grad_()
    a, expected = smlora.gated_activation(h, activation), plain_activation(wide, activation)
    da = torch.randn_like(a)
    assert_close(a, expected, dtype)
    assert_close(torch.autograd.grad(a, h, da)[0], torch.autograd.grad(expected, wide, da.double())[0], dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_activation_as_an_operator(device, kind):
    numbers = smlora.Activation(kind, True, ALPHA, LIMIT).numbers()
    h = torch.randn(6, 8, device=device, requires_grad=True)
    opcheck(torch.ops.smlora.activation.default, (h, *numbers))
    da, gates = torch.randn(6, 4, device=device), torch.rand(3, 2, device=device)
    entries = torch.randperm(6, device=device)
    opcheck(torch.ops.smlora.activation_backward.default, (h.detach(), da, *numbers, True))
    opcheck(torch.ops.smlora.activation_backward.default, (h.detach(), da, *numbers, False, gates, entries))
    if device.type == "cpu":
        assert torch.autograd.gradcheck(lambda h: smlora.gated_activation(h, kind), (h.detach().double().requires_grad_(),))


def test_activation_errors():
    with pytest.raises(ValueError, match="activation: expected one of swiglu"):
        smlora.gated_activation(torch.zeros(2, 4), "swish")
    with pytest.raises(ValueError, match=r"h: expected \[rows, 2 \* width\]"):
        smlora.gated_activation(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="limit"):
        smlora.gated_activation(torch.zeros(2, 4), smlora.Activation("swiglu_clamped", limit=-1.0))
    for wrong in ("no", None, 2):
        with pytest.raises(ValueError, match=f"^interleaved: expected True or False, got {wrong!r} of type"):
            smlora.gated_activation(torch.zeros(2, 4), smlora.Activation("swiglu", wrong))


NAMES = ["x", "W1", "A1", "B1", "b1", "W2", "A2", "B2", "b2", "gates"]


class Mlp:
    E, K, I, N, R, TOP_K, T = 5, 24, 16, 32, 4, 2, 13
    scalings = 0.5, 1.5

    def __init__(self, device, dtype=torch.float32, left_out=False, activation="swiglu", biased=True):
        E, K, I, N, R = self.E, self.K, self.I, self.N, self.R
        shapes = [(self.T, K), (E, K, 2 * I), (E, R, K), (E, 2 * I, R), (E, 2 * I), (E, I, N), (E, R, I), (E, N, R), (E, N)]

        def leaf(*shape):
            return (torch.randn(shape, dtype=torch.float64) * shape[-2] ** -0.25).to(device, dtype).requires_grad_()

        self.leaves = [leaf(*shape) for shape in shapes]
        gates = torch.rand(self.T, self.TOP_K, dtype=torch.float64) + 0.1
        self.leaves.append(gates.to(device, dtype).requires_grad_())
        if not biased:
            self.leaves = [None if name in ("b1", "b2") else leaf for name, leaf in zip(NAMES, self.leaves, strict=True)]
        self.names = [name for name, leaf in zip(NAMES, self.leaves, strict=True) if leaf is not None]
        self.activation = activation
        self.choices = random_choices(self.T, self.TOP_K, E, device, left_out)
        self.routing = smlora.route(self.choices, E)

    def __call__(self, leaves=None):
        x, W1, A1, B1, b1, W2, A2, B2, b2, gates = self.leaves if leaves is None else leaves
        return smlora.moe_lora_mlp(
            x, W1, W2, self.routing, gates, activation=self.activation, gate_up_bias=b1, down_bias=b2,
            gate_up_lora=smlora.Adapter(A1, B1, self.scalings[0]), down_lora=(A2, B2, self.scalings[1])
        )

    @property
    def trained(self):
        return [leaf for leaf in self.leaves if leaf is not None]

    def reference(self):
        leaves = [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in self.leaves]
        x, W1, A1, B1, b1, W2, A2, B2, b2, gates = leaves
        from smlora._activation import as_activation

        out = 0
        for j in range(self.TOP_K):
            e = self.choices[:, j]
            there = (e >= 0).double().unsqueeze(1)
            e = e.clamp_min(0)

            def project(x, W, A, B, b, scaling, e=e):
                base = torch.einsum("tk,tkn->tn", x, W[e]) + (0 if b is None else b[e])
                return base + scaling * torch.einsum("tk,trk,tnr->tn", x, A[e], B[e])

            a = plain_activation(project(x, W1, A1, B1, b1, self.scalings[0]), as_activation(self.activation))
            out = out + there * gates[:, j, None] * project(a, W2, A2, B2, b2, self.scalings[1])
        return out, [leaf for leaf in leaves if leaf is not None]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("activation", [*KINDS, smlora.GPT_OSS])
def test_outputs_and_gradients(device, activation, biased):
    mlp = Mlp(device, left_out=True, activation=activation, biased=biased)
    out, (expected, leaves) = mlp(), mlp.reference()
    assert_close(out, expected, torch.float32)
    dout = torch.randn_like(out)
    got = torch.autograd.grad(out, mlp.trained, dout)
    wanted = torch.autograd.grad(expected, leaves, dout.double())
    for name, gradient, reference in zip(mlp.names, got, wanted, strict=True):
        assert_close(gradient, reference, torch.float32, name)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_and_gradients_in_16_bits(device, dtype, biased):
    mlp = Mlp(device, dtype, biased=biased)
    out, (expected, leaves) = mlp(), mlp.reference()
    got = torch.autograd.grad(out.float().sum(), mlp.trained)
    wanted = torch.autograd.grad(expected.sum(), leaves)
    # h, a and their gradients are rounded on the way: three or four roundings of one size.
    assert_close(out, expected, dtype, factor=2)
    for name, gradient, reference in zip(mlp.names, got, wanted, strict=True):
        assert_close(gradient, reference, dtype, name, factor=2)


@pytest.mark.parametrize("biased", [True, False])
def test_gradcheck_in_double(biased):
    mlp = Mlp("cpu", torch.float64, left_out=True, biased=biased)

    def of_trained(*leaves):
        left = iter(leaves)
        return mlp([None if leaf is None else next(left) for leaf in mlp.leaves])

    assert torch.autograd.gradcheck(of_trained, mlp.trained)


@pytest.mark.parametrize("biased", [True, False])
def test_every_subset_of_trained_tensors_gives_the_same_gradients(biased):
    """A sample of all, with those of a single tensor among them."""
    mlp = Mlp("cpu", torch.float64, left_out=True, biased=biased)
    names = mlp.names
    full = dict(zip(names, torch.autograd.grad(mlp().square().sum(), mlp.trained), strict=True))
    subsets = [[name] for name in names] + [random.sample(names, random.randint(2, 7)) for _ in range(60)]
    for subset in subsets:
        leaves = [
            None if leaf is None else leaf.detach().requires_grad_(name in subset)
            for name, leaf in zip(NAMES, mlp.leaves, strict=True)
        ]
        trained = {name: leaf for name, leaf in zip(NAMES, leaves, strict=True) if name in subset}
        for name, got in zip(trained, torch.autograd.grad(mlp(leaves).square().sum(), list(trained.values()))):
            torch.testing.assert_close(got, full[name], msg=f"{name} of {subset}")


@pytest.mark.parametrize("biased", [True, False])
def test_the_activation_is_read_once_in_backward_unless_a_bias_has_a_part_in_the_gates(device, biased):
    mlp = Mlp(device, biased=biased)
    out = mlp().sum()
    with OperatorsSeen() as seen:
        out.backward()
    assert ("activation_rows" in seen.results) == biased
    assert (seen.results["activation_backward"][2].numel() > 0) == (not biased)


def test_what_is_kept_for_backward(device):
    """Inputs, h and the rank-sized rows: no activation, nothing of [M, N], no gathered rows."""
    mlp = Mlp(device)
    for name, leaf in zip(NAMES, mlp.leaves, strict=True):
        leaf.requires_grad_(name not in ("W1", "b1", "W2", "b2"))
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = mlp()
    given = {leaf.data_ptr() for leaf in mlp.leaves} | {tensor.data_ptr() for tensor in mlp.routing[:3]}
    M = mlp.T * mlp.TOP_K
    shapes = sorted(tuple(tensor.shape) for address, tensor in kept.items() if address not in given)
    assert shapes == sorted([(M, 2 * mlp.I), (M, 8), (M, 8)])
    out.sum().backward()


@pytest.mark.parametrize("trained", [True, False])
def test_opcheck(device, trained):
    mlp = Mlp(device)
    leaves = [leaf.detach().requires_grad_(trained) for leaf in mlp.leaves]
    routing = mlp.routing
    opcheck(torch.ops.smlora.mlp.default, (*leaves, routing[1], routing[2], mlp.TOP_K, *mlp.scalings,
                                           *smlora.Activation().numbers()))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_whole(device, backend):
    torch._dynamo.reset()
    mlp = Mlp(device)

    def step(leaves, choices):
        routing = smlora.route(choices, mlp.E)
        x, W1, A1, B1, b1, W2, A2, B2, b2, gates = leaves
        out = smlora.moe_lora_mlp(x, W1, W2, routing, gates, gate_up_lora=(A1, B1, 0.5), down_lora=(A2, B2, 1.5))
        return out.sin()

    trained = [mlp.leaves[NAMES.index(name)] for name in ("x", "A1", "B1", "A2", "B2", "gates")]
    eager = step(mlp.leaves, mlp.choices)
    traced = torch.compile(step, fullgraph=True, backend=backend)(mlp.leaves, mlp.choices)
    assert_close(traced, eager, torch.float32)
    for got, wanted in zip(torch.autograd.grad(traced.sum(), trained), torch.autograd.grad(eager.sum(), trained)):
        assert_close(got, wanted, torch.float32)


def test_autocast(device):
    mlp = Mlp(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = mlp()
    assert out.dtype == torch.bfloat16
    # x, the weights and the biases are rounded as well as h, a and the result.
    assert_close(out, mlp.reference()[0], torch.bfloat16, factor=3)
    assert {gradient.dtype for gradient in torch.autograd.grad(out.float().sum(), mlp.leaves)} == {torch.float32}


def test_without_adapters_biases_and_gates(device):
    mlp = Mlp(device)
    x, W1, _, _, _, W2, *_ = mlp.leaves
    out = smlora.moe_lora_mlp(x, W1, W2, mlp.routing)
    expected = sum(
        torch.einsum("tk,tkn->tn", plain_activation(torch.einsum("tk,tkn->tn", x, W1[e]), smlora.Activation()), W2[e])
        for e in mlp.choices.T
    )
    assert_close(out, expected, torch.float32)
    (dx,) = torch.autograd.grad(out.sum(), x)
    assert_close(dx, torch.autograd.grad(expected.sum(), x)[0], torch.float32)


def test_errors_name_the_argument():
    mlp = Mlp("cpu")
    x, W1, _, _, _, W2, *_ = mlp.leaves
    with pytest.raises(ValueError, match=r"gate_up: expected \[E, K, 2 \* I\] with I = 16"):
        smlora.moe_lora_mlp(x, W1[:, :, :-2], W2, mlp.routing)
    with pytest.raises(ValueError, match=r"down: expected a tensor \[E, in, out\], got"):
        smlora.moe_lora_mlp(x, W1, W2[0], mlp.routing)
    with pytest.raises(ValueError, match=r"down: expected torch.float32, as gate_up, got torch.float64"):
        smlora.moe_lora_mlp(x, W1, W2.double(), mlp.routing)
    with pytest.raises(ValueError, match=r"x: expected a dense tensor, got one of torch.sparse_coo"):
        smlora.moe_lora_mlp(x.detach().to_sparse(), W1, W2, mlp.routing)
    adapter = smlora.Adapter(torch.zeros(mlp.E, 2, 5), torch.zeros(mlp.E, W2.shape[2], 2))
    with pytest.raises(ValueError, match=r"down_lora.lora_A: expected \[E, R, K\] = .*, got \[\d+, 2, 5\]"):
        smlora.moe_lora_mlp(x, W1, W2, mlp.routing, down_lora=adapter)
    with pytest.raises(ValueError, match=r"gate_up_bias: expected \[E, N\] = .*, got \[3\]"):
        smlora.moe_lora_mlp(x, W1, W2, mlp.routing, gate_up_bias=torch.zeros(3, dtype=x.dtype))
    with pytest.raises(ValueError, match="gate_up_lora: expected an Adapter, got 'lora' of type str"):
        smlora.moe_lora_mlp(x, W1, W2, mlp.routing, gate_up_lora="lora")
    with pytest.raises(ValueError, match="gate_up_lora.scaling: expected a number, got None"):
        smlora.moe_lora_mlp(x, W1, W2, mlp.routing, gate_up_lora=adapter._replace(scaling=None))


def test_errors_of_tensors_on_meta_name_the_argument():
    """Weights that were never loaded."""
    mlp = Mlp("cpu")
    for name, ours in zip(NAMES[1:9], ["gate_up", "gate_up_lora.lora_A", "gate_up_lora.lora_B", "gate_up_bias", "down",
                                       "down_lora.lora_A", "down_lora.lora_B", "down_bias"], strict=True):
        leaves = [leaf.detach().to("meta") if name == at else leaf.detach() for at, leaf in zip(NAMES, mlp.leaves, strict=True)]
        with pytest.raises(ValueError, match=f"^{ours}: expected a tensor on cpu, where x is, got one on meta"):
            mlp(leaves)
