"""Numbers among the arguments: what is taken for one, and the error of everything else."""

import re

import pytest
import smlora
import torch
from smlora.scattermoe import kernels, parallel_linear_lora, scatter2scatter_multilora
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jvp, vmap

E, K, N, R, T = 3, 4, 6, 2, 4
CHOICES = torch.tensor([[0, 2], [2, 1], [0, 1], [2, 0]])


def operations():
    """Functions of a number, by what the number is called."""
    routing = smlora.route(CHOICES, E)
    x, W, down = torch.randn(T, K), torch.randn(E, K, N), torch.randn(E, N // 2, K)
    adapter, of_down = (torch.randn(E, R, K), torch.randn(E, N, R)), (torch.randn(E, R, N // 2), torch.randn(E, K, R))
    h = torch.randn(5, 6)
    arrays = smlora.scattermoe.flatten_sort_count(CHOICES, E)
    A, B = torch.randn(E * R, K), torch.randn(N, E * R)

    def mlp(up=1.0, out=1.0):
        return smlora.moe_lora_mlp(x, W, down, routing, gate_up_lora=(*adapter, up), down_lora=(*of_down, out))

    def activated(**numbers):
        return smlora.gated_activation(h, smlora.Activation("swiglu_clamped", **numbers))

    return {
        "scaling": lambda s: smlora.moe_lora_linear(x, W, routing, *adapter, scaling=s),
        "gate_up_lora.scaling": lambda s: mlp(up=s),
        "down_lora.scaling": lambda s: mlp(out=s),
        "alpha": lambda s: activated(alpha=s),
        "limit": lambda s: activated(limit=s),
        "scaling of scattermoe": lambda s: parallel_linear_lora(x, W, 2, *arrays, A, B, s),
        "scaling of tenants": lambda s: scatter2scatter_multilora(
            x, W, 2, arrays[0], arrays[0], arrays[1], arrays[2], arrays[2], A, B, s),
    }


def under_dual_level(function, s):
    with forward_ad.dual_level():
        return function(forward_ad.make_dual(s, torch.ones_like(s)))


DERIVATIVES = {
    "requires_grad": lambda f, s: f(s.clone().requires_grad_()),
    "a result": lambda f, s: f(s.clone().requires_grad_() * 2),
    "grad": lambda f, s: grad(lambda s: f(s).sum())(s),
    "grad of grad": lambda f, s: grad(lambda s: grad(lambda t: f(s).sum() * t)(s))(s),
    "jvp": lambda f, s: jvp(f, (s,), (torch.ones_like(s),)),
    "jacfwd": lambda f, s: jacfwd(f)(s),
    "jvp below no_grad": lambda f, s: jvp(torch.no_grad()(f), (s,), (torch.ones_like(s),)),
    "vmap": lambda f, s: vmap(f)(torch.stack((s, 2 * s))),
    "dual tensor": under_dual_level,
    "dual tensor below no_grad": lambda f, s: under_dual_level(torch.no_grad()(f), s),
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("name", operations())
def test_a_number_that_needs_a_derivative_is_refused(name, derivative):
    function = operations()[name]
    argument = re.escape(name.split(" ")[0])
    with pytest.raises(ValueError, match=f"^{argument}: expected a number or a tensor that needs no derivative"):
        DERIVATIVES[derivative](function, torch.tensor(1.5))


@pytest.mark.parametrize("name", operations())
def test_a_tensor_that_needs_no_derivative_is_a_number(name):
    function = operations()[name]
    s, expected = torch.tensor(1.5), function(1.5)
    assert torch.equal(function(s), expected)
    assert torch.equal(function(s.view(1)), expected)
    with torch.no_grad():
        assert torch.equal(function(s.clone().requires_grad_()), expected)
    with forward_ad.dual_level():
        assert torch.equal(function(s), expected)
    # A constant under a transform is wrapped as what is differentiated there is.
    derivative = grad(lambda t: (function(s * torch.ones(())) * t).sum())(torch.tensor(1.0))
    torch.testing.assert_close(derivative, expected.sum())
    torch._dynamo.reset()
    assert torch.equal(torch.compile(function, backend="eager")(s), expected)


@pytest.mark.parametrize("name", operations())
@pytest.mark.parametrize("wrong", ["two", None, [1.0], torch.ones(2), 10**400])
def test_what_is_no_number_is_refused(name, wrong):
    with pytest.raises(ValueError, match=f"^{re.escape(name.split(' ')[0])}: expected a number, got"):
        operations()[name](wrong)


def test_numbers_of_the_kernels_of_scattermoe_are_checked():
    experts, scattered, offsets = smlora.scattermoe.flatten_sort_count(CHOICES, E)
    x, dy, W = torch.randn(T, K), torch.randn(2 * T, N), torch.randn(E, K, N)
    A, B, grouped = torch.randn(E * R, K), torch.randn(N, E * R), torch.randn(2 * T, K)
    rank_rows = torch.randn(2 * T, R)
    for call in (
        lambda s: kernels.lora_ops.scatter2scatter_lora(x, W, experts, scattered, 2, A, B, s),
        lambda s: kernels.lora_ops.scatter2scatter_lora_dX(dy, W, experts, scattered, 1, A, B, s),
        lambda s: kernels.lora_ops.group_bwd_lora(dy, grouped, A, B, offsets, E, s),
        lambda s: kernels.grouped_gram.grouped_lora_weight_grads(dy, grouped, rank_rows, rank_rows, A, B, offsets, E, s),
    ):
        call(2)
        with pytest.raises(ValueError, match="^scaling: expected a number, got 'two' of type str"):
            call("two")


WHOLE = {
    "num_experts": [lambda n: smlora.route(CHOICES, n),
                    lambda n: smlora.adapter_views(torch.zeros(6, 4), torch.zeros(4, 6), n),
                    lambda n: smlora.MoELoRALinear(n, 4, 4, 2)],
    "in_features": [lambda n: smlora.MoELoRALinear(3, n, 4, 2)],
    "out_features": [lambda n: smlora.MoELoRALinear(3, 4, n, 2)],
    "rank": [lambda n: smlora.MoELoRALinear(3, 4, 4, n)],
    "top_k": [lambda n: smlora.combine(torch.zeros(6, 4), top_k=n)],
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers(name):
    numpy = pytest.importorskip("numpy", reason="needs numpy")
    for call in WHOLE[name]:
        for good in (3, numpy.int64(3), torch.tensor(3)):
            call(good)
        for wrong in ("3", 3.0, [3]):
            with pytest.raises(ValueError, match=f"^{name}: expected a whole number, got {re.escape(repr(wrong))} of type"):
                call(wrong)
        for wrong in (-1, 2**63, 2**100):
            with pytest.raises(ValueError, match=f"^{name}: expected [01] (or more|to [0-9]+), got {wrong}$"):
                call(wrong)


@pytest.mark.parametrize("name", ["E", "K", "N", "R", "top_k"])
def test_the_sizes_of_a_problem(name):
    numpy = pytest.importorskip("numpy", reason="needs numpy")
    problem = smlora.Problem(4, 16, 16, 4, 2)
    assert problem._replace(**{name: numpy.int32(7)}).numbers() == problem._replace(**{name: 7}).numbers()
    for wrong, expected in (("7", "a whole number"), (7.0, "a whole number"), (-1, "[01] or more"),
                            (2**63, f"[01] to {2**63 - 1}")):
        for function in (smlora.prewarm, smlora.tune):
            with pytest.raises(ValueError, match=f"^{name}: expected {expected}, got {re.escape(repr(wrong))}"):
                function([problem._replace(**{name: wrong})], [1])


@pytest.mark.parametrize("function", [smlora.prewarm, smlora.tune])
@pytest.mark.parametrize("wrong, expected", [
    (0, "1 or more"), (-1, "1 or more"), (2**63, f"1 to {2**63 - 1}"),
    (1.5, "a whole number"), ("a", "a whole number"), (None, "a whole number"),
])
def test_numbers_of_tokens(function, wrong, expected):
    with pytest.raises(ValueError, match=f"^tokens: expected {expected}, got {re.escape(repr(wrong))}"):
        function([smlora.Problem(4, 16, 16, 4, 2)], [64, wrong])


INT32, INT64, SKEWS = f"1 to {2**31 - 1}", f"1 to {2**63 - 1}", "one of uniform, zipf, one"


@pytest.mark.parametrize("name, wrong, expected", [
    ("seconds", 0, "a number above 0"), ("seconds", -1, "a number above 0"), ("seconds", float("nan"), "a number above 0"),
    ("seconds", 1e-50, "a number above 0"), ("seconds", None, "a number"), ("seconds", "long", "a number"),
    ("rounds", 0, "1 or more"), ("rounds", 2**31, INT32), ("rounds", 2**32 + 1, INT32), ("rounds", 2**64, INT32),
    ("rounds", 9.0, "a whole number"), ("rounds", None, "a whole number"),
    ("candidates", 0, "1 or more"), ("candidates", 2**32 + 1, INT32), ("candidates", 2**64, INT32),
    ("candidates", "8", "a whole number"),
    ("memory_bytes", -1, "1 or more"), ("memory_bytes", 0, "1 or more"), ("memory_bytes", 2**63, INT64),
    ("memory_bytes", 1e9, "a whole number"),
    ("skew", "left", SKEWS), ("skew", ["zipf"], SKEWS), ("skew", 1, SKEWS),
    ("again", "yes", "True or False"), ("again", None, "True or False"),
    ("progress", 1, "a function"),
])
def test_options_of_tune(name, wrong, expected):
    with pytest.raises(ValueError, match=f"^{name}: expected {expected}, got {re.escape(repr(wrong))}"):
        smlora.tune([smlora.Problem(4, 16, 16, 4, 2)], [64], **{name: wrong})


@pytest.mark.parametrize("device", ["mps", "nowhere", None, 1.5])
def test_a_device_without_a_cache_is_refused(device):
    with pytest.raises(ValueError, match=f'^device: expected "cpu" or "cuda", got {re.escape(repr(device))}'):
        smlora.cache_stats(device)
