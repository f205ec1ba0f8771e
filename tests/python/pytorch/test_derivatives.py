"""Derivatives of derivatives and forward mode, in fp64 against differences and against plain torch. What is not supported must
raise: a missing term would be a wrong number that nobody sees."""

import itertools

import pytest
import smlora
import torch
import torch.autograd.forward_ad as forward_ad
import torch.utils.checkpoint
from reference import Layer, OperatorsSeen, assert_close, linear, random_choices
from test_mlp import ALPHA, KINDS, LIMIT, NAMES, Mlp, plain_activation
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

ORDERS = ["token", "scattered", "grouped"]


def small_layer(**changes):
    return Layer(dtype=torch.float64, E=3, K=3, N=2, R=2, T=3, left_out=True, **changes)


def function_of(layer, names=None, **arguments):
    """moe_lora_linear of some of the layer's leaves, the others constant, and those leaves."""
    routing = smlora.route(layer.choices, layer.E)
    names = list(layer.leaves()) if names is None else names

    def function(*tensors):
        given = {name: leaf.detach() for name, leaf in layer.leaves().items()}
        given.update(zip(names, tensors, strict=True))
        weight = given["W"].transpose(1, 2) if layer.enk else given["W"]
        return smlora.moe_lora_linear(
            given["x"], weight, routing, given["A"], given["B"], scaling=layer.scaling, bias=given["bias"],
            gates=given.get("gates"), x_rows=layer.x_rows, y_rows=layer.y_rows, **arguments
        )

    return function, tuple(layer.leaves()[name] for name in names)


@pytest.mark.parametrize("y_rows", ORDERS)
@pytest.mark.parametrize("x_rows", ORDERS)
def test_linear_in_every_order_of_rows(x_rows, y_rows):
    function, leaves = function_of(small_layer(x_rows=x_rows, y_rows=y_rows, enk=x_rows == "token"))
    assert gradcheck(function, leaves, check_forward_ad=True)
    assert gradgradcheck(function, leaves, check_fwd_over_rev=True)


@pytest.mark.parametrize("names", [[name] for name in ("x", "W", "A", "B", "bias", "gates")] +
                         [list(pair) for pair in itertools.combinations(("x", "A", "B", "gates"), 2)])
def test_linear_in_some_of_its_arguments(names):
    """What is kept for backward depends on which gradients are wanted."""
    layer = small_layer(y_rows="token")
    function, leaves = function_of(layer, names)
    assert gradcheck(function, leaves, check_forward_ad=True)
    # dy is an argument as well: the gradient of a sum of squares depends on it.
    assert gradgradcheck(lambda *tensors: function(*tensors).square(), leaves)
    y = function(*leaves)
    expected, wide = linear(layer, smlora.route(layer.choices, layer.E))
    for out, tensors in ((y, leaves), (expected, [wide[name] for name in names])):
        first = torch.autograd.grad(out.square().sum(), tensors, create_graph=True)
        penalty = sum(gradient.pow(3).sum() for gradient in first)
        second = torch.autograd.grad(penalty, tensors)
        if out is y:
            got = first, second
    for gradients, references in zip(got, (first, second), strict=True):
        for gradient, reference in zip(gradients, references, strict=True):
            assert_close(gradient, reference, torch.float64)


def test_adapters_with_any_strides():
    """PEFT's B is [N, R * E], rank-major."""
    layer = small_layer()
    E, R, K, N = layer.E, layer.R, layer.K, layer.N
    routing = smlora.route(layer.choices, E)
    A, B = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((E * R, K), (N, R * E)))

    def function(x, A, B):
        return smlora.moe_lora_linear(x, layer.W.detach(), routing, *smlora.adapter_views(A, B, E, layout="peft"))

    assert gradcheck(function, (layer.x, A, B), check_forward_ad=True)
    assert gradgradcheck(function, (layer.x, A, B), check_fwd_over_rev=True)


def test_a_gradient_penalty_although_dy_needs_no_gradient():
    """The sum's gradient is constant: nothing that backward is given says that a second derivative is wanted."""
    layer = small_layer(y_rows="token")
    function, leaves = function_of(layer)
    expected, wide = linear(layer, smlora.route(layer.choices, layer.E))
    gradients = []
    for y, tensors in ((function(*leaves), leaves), (expected, list(wide.values()))):
        x = tensors[0]
        (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        loss = y.sum() + (dx.norm(dim=1) - 1).square().sum()
        gradients.append(torch.autograd.grad(loss, tensors))
    for name, got, reference in zip(layer.leaves(), *gradients, strict=True):
        assert_close(got, reference, torch.float64, name)


class SmallMlp(Mlp):
    E, K, I, N, R, TOP_K, T = 3, 3, 2, 3, 2, 2, 3


@pytest.mark.parametrize("activation", [*KINDS, smlora.GPT_OSS])
def test_mlp(activation):
    mlp = SmallMlp("cpu", torch.float64, left_out=True, activation=activation)
    assert gradcheck(lambda *leaves: mlp(leaves), mlp.leaves, check_forward_ad=True)
    assert gradgradcheck(lambda *leaves: mlp(leaves), mlp.leaves, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", NAMES)
def test_mlp_in_one_argument(name):
    mlp = SmallMlp("cpu", torch.float64, left_out=True)
    constant = [leaf.detach() for leaf in mlp.leaves]
    i = NAMES.index(name)

    def function(leaf):
        return mlp([*constant[:i], leaf, *constant[i + 1 :]]).square()

    assert gradcheck(function, mlp.leaves[i], check_forward_ad=True)
    assert gradgradcheck(function, mlp.leaves[i], check_fwd_over_rev=True)


@pytest.mark.parametrize("moved", NAMES)
@pytest.mark.parametrize("trained", ["x", "A2"])
def test_tangents_of_the_mlps_gradients(trained, moved):
    """Of one argument's gradient, for a tangent of another that may be untrained, against differences."""
    mlp = SmallMlp("cpu", torch.float64, left_out=True)
    i, j = NAMES.index(trained), NAMES.index(moved)
    constant = [leaf.detach() for leaf in mlp.leaves]
    direction = torch.randn_like(constant[j])

    def gradient(value):
        leaves = [*constant[:j], value, *constant[j + 1 :]]
        if i != j:
            leaves[i] = leaves[i].clone().requires_grad_()
        return torch.autograd.grad(mlp(leaves).pow(3).sum(), leaves[i])[0]

    def at(step):
        return (constant[j] + step * direction).requires_grad_(i == j)

    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(gradient(forward_ad.make_dual(at(0), direction))).tangent
    differences = (gradient(at(1e-5)) - gradient(at(-1e-5))) / 2e-5
    torch.testing.assert_close(tangent, differences, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gated_activation(kind, interleaved):
    # The library takes both numbers in fp32: these are the same there.
    activation = smlora.Activation(kind, interleaved, 1.25, 1.4375)
    h = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)

    def function(h):
        return smlora.gated_activation(h, activation)

    assert gradcheck(function, h, check_forward_ad=True)
    assert gradgradcheck(function, h, check_fwd_over_rev=True)
    (dh,) = torch.autograd.grad(function(h).sum(), h, create_graph=True)
    torch.testing.assert_close(dh, torch.autograd.grad(function(h).sum(), h)[0], rtol=1e-13, atol=1e-14)
    third, expected = (
        grad(lambda h: grad(lambda h: grad(lambda h: f(h).pow(3).sum())(h).pow(3).sum())(h).sum())(h.detach())
        for f in (function, lambda h: plain_activation(h, activation))
    )
    torch.testing.assert_close(third, expected)


def test_the_gradient_with_a_graph_has_the_numbers_of_the_kernel():
    """ALPHA and LIMIT are rounded to fp32 on their way to the library."""
    h = torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    a = smlora.gated_activation(h, smlora.Activation("swiglu_clamped", False, ALPHA, LIMIT))
    plain, with_graph = (torch.autograd.grad(a.sum(), h, create_graph=graph, retain_graph=True)[0] for graph in (False, True))
    torch.testing.assert_close(with_graph, plain, rtol=1e-13, atol=1e-14)


def operations_on_rows():
    E, k, T = 3, 2, 4
    routing = smlora.route(random_choices(T, k, E, left_out=True), E)
    gates = torch.rand(T, k, dtype=torch.float64, requires_grad=True)
    by_token, by_entry = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (T, T * k))
    return {
        "combine": (lambda y: smlora.combine(y, top_k=k), (by_entry,)),
        "combine with gates": (smlora.combine, (by_entry, gates)),
        "group": (lambda x: smlora.group(x, routing), (by_token,)),
        "group with gates": (lambda x, gates: smlora.group(x, routing, gates), (by_token, gates)),
        "group of entries": (lambda x: smlora.group(x, routing, rows="scattered"), (by_entry,)),
        "group of entries with gates": (lambda x, gates: smlora.group(x, routing, gates, rows="scattered"),
                                        (by_entry, gates)),
    }


@pytest.mark.parametrize("name", operations_on_rows())
def test_rows(name):
    function, inputs = operations_on_rows()[name]
    assert gradcheck(function, inputs, check_forward_ad=True)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True)
    # With a gradient of the result that is constant, and of each input alone.
    for i, leaf in enumerate(inputs):
        constant = [tensor.detach() for tensor in inputs]

        def alone(leaf, i=i, constant=constant):
            return function(*constant[:i], leaf, *constant[i + 1 :]).square()

        assert gradgradcheck(alone, leaf, check_fwd_over_rev=True)


TRANSFORMS = {
    "hessian": hessian,
    "jacfwd of jacfwd": lambda f: jacfwd(jacfwd(f)),
    "jacrev of jacrev": lambda f: jacrev(jacrev(f)),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(f)),
    "grad of grad": lambda f: grad(lambda t: grad(f)(t).pow(3).sum()),
    "grad of grad of grad": lambda f: grad(lambda t: grad(lambda t: grad(f)(t).pow(3).sum())(t).pow(2).sum()),
    "jvp of grad": lambda f: lambda t: jvp(grad(f), (t,), (torch.ones_like(t),))[1],
    "jvp of jvp": lambda f: lambda t: jvp(lambda t: jvp(f, (t,), (t.sin(),))[1], (t,), (t.cos(),))[1],
    "grad of jvp": lambda f: grad(lambda t: jvp(f, (t,), (t.sin(),))[1]),
    "vmap of grad": lambda f: lambda t: vmap(grad(f))(torch.stack((t, 2 * t))),
    "vmap of jvp": lambda f: lambda t: vmap(lambda t: jvp(f, (t,), (t,))[1])(torch.stack((t, 2 * t))),
    "vmap of grad of grad": lambda f: lambda t: vmap(TRANSFORMS["grad of grad"](f))(torch.stack((t, 2 * t))),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("leaf", ["x", "A", "gates"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_torch_func(name, leaf):
    layer = small_layer(y_rows="token")
    routing = smlora.route(layer.choices, layer.E)
    values = {name: tensor.detach() for name, tensor in layer.leaves().items()}
    mask = (layer.choices >= 0).double()

    def ours(tensor):
        v = dict(values, **{leaf: tensor})
        y = smlora.moe_lora_linear(v["x"], v["W"], routing, v["A"], v["B"], scaling=layer.scaling, bias=v["bias"],
                                   gates=v["gates"], y_rows="token")
        return smlora.gated_activation(y).pow(2).sum()

    def plain(tensor):
        v = dict(values, **{leaf: tensor})
        e = layer.choices.clamp_min(0)
        weights = v["W"] + layer.scaling * torch.einsum("erk,enr->ekn", v["A"], v["B"])
        rows = torch.einsum("tk,tjkn->tjn", v["x"], weights[e]) + v["bias"][e]
        y = (rows * (v["gates"] * mask).unsqueeze(2)).sum(1)
        return plain_activation(y, smlora.Activation()).pow(2).sum()

    transform = TRANSFORMS[name]
    torch.testing.assert_close(transform(ours)(values[leaf]), transform(plain)(values[leaf]))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_transforms_of_the_mlp_and_of_rows(name):
    mlp = SmallMlp("cpu", torch.float64)
    x, W1, A1, B1, b1, W2, A2, B2, b2, gates = (leaf.detach() for leaf in mlp.leaves)

    def ours(x):
        out = mlp([x, W1, A1, B1, b1, W2, A2, B2, b2, gates])
        rows = torch.zeros(mlp.T * mlp.TOP_K, mlp.N, dtype=torch.float64)
        return smlora.combine(rows + smlora.group(out, mlp.routing, gates), gates).pow(2).sum()

    def plain(x):
        e = mlp.choices
        W_up, W_down = (W + s * torch.einsum("erk,enr->ekn", A, B)
                        for W, A, B, s in zip((W1, W2), (A1, A2), (B1, B2), mlp.scalings))
        h = torch.einsum("tk,tjkn->tjn", x, W_up[e]) + b1[e]
        a = plain_activation(h.flatten(0, 1), smlora.Activation()).view(mlp.T, mlp.TOP_K, mlp.I)
        out = ((torch.einsum("tjk,tjkn->tjn", a, W_down[e]) + b2[e]) * gates.unsqueeze(2)).sum(1)
        entries = (out.unsqueeze(1) * gates.unsqueeze(2)).flatten(0, 1)
        grouped = entries[mlp.routing.sorted_scattered_idxs.long()]
        return (grouped.view(mlp.T, mlp.TOP_K, mlp.N) * gates.unsqueeze(2)).sum(1).pow(2).sum()

    transform = TRANSFORMS[name]
    torch.testing.assert_close(transform(ours)(x), transform(plain)(x))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_dual_tensors_with_and_without_gradients_and_in_no_grad(requires_grad):
    layer = small_layer()
    function, _ = function_of(layer, ["x"])
    x, tangent = layer.x.detach().requires_grad_(requires_grad), torch.randn_like(layer.x)
    with forward_ad.dual_level():
        y = function(forward_ad.make_dual(x, tangent))
        with torch.no_grad():
            without_grad = function(forward_ad.make_dual(x, tangent))
        for result in (y, without_grad):
            torch.testing.assert_close(forward_ad.unpack_dual(result).tangent,
                                       function(tangent) - function(torch.zeros_like(tangent)))


def every_operation():
    """Functions of tensors that are all differentiable, and those tensors."""
    layer, mlp = small_layer(y_rows="token"), SmallMlp("cpu", torch.float64, left_out=True)
    h = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    return {
        "linear": function_of(layer),
        "mlp": (lambda *leaves: mlp(leaves), mlp.leaves),
        "activation": (smlora.gated_activation, (h,)),
        **operations_on_rows(),
    }


@pytest.mark.parametrize("name", every_operation())
def test_tangents_of_gradients_without_a_graph(name):
    """backward() under a dual level: nothing but the tangents says that derivatives of gradients are wanted."""
    function, tensors = every_operation()[name]
    tangents = [torch.randn_like(tensor) for tensor in tensors]
    found = []
    for create_graph in (False, True):
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(*pair) for pair in zip(tensors, tangents, strict=True)]
            gradients = torch.autograd.grad(function(*duals).square().sum(), duals, create_graph=create_graph)
            found.append([forward_ad.unpack_dual(gradient).tangent for gradient in gradients])
    for without, expected in zip(*found, strict=True):
        torch.testing.assert_close(without, expected)


@pytest.mark.parametrize("name", every_operation())
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_a_batch_are_those_of_its_elements(name):
    function, tensors = every_operation()[name]
    y = function(*tensors)
    batch = torch.randn(2, *y.shape, dtype=y.dtype)
    batched = torch.autograd.grad(y, tensors, batch, is_grads_batched=True, retain_graph=True)
    for i, dy in enumerate(batch):
        for got, expected in zip(batched, torch.autograd.grad(y, tensors, dy, retain_graph=True), strict=True):
            torch.testing.assert_close(got[i], expected)


@pytest.mark.parametrize("name", every_operation())
def test_a_gradient_that_torch_has_yet_to_negate(name):
    """As that of an imaginary part may be, behind a conjugate: what lies in memory has the other sign."""
    function, tensors = every_operation()[name]
    y = function(*tensors)
    dy = torch.randn_like(y)
    lazy = torch._neg_view(-dy)
    assert lazy.is_neg() and lazy.is_contiguous()
    expected = torch.autograd.grad(y, tensors, dy, retain_graph=True)
    for got, want in zip(torch.autograd.grad(y, tensors, lazy), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", every_operation())
def test_a_mode_around_backward_alone_sees_its_operators(name):
    function, tensors = every_operation()[name]
    y = function(*tensors).sum()
    with OperatorsSeen() as seen:
        y.backward()
    expected = {
        "linear": {"backward_input", "backward_lora", "backward_weight", "backward_bias"},
        "mlp": {"activation_rows", "activation_backward", "backward_input", "backward_lora", "backward_weight", "backward_bias"},
        "activation": {"activation_backward"},
        "combine": {"combine_backward"},
        "combine with gates": {"combine_backward"},
        "group": {"combine_rows"},
        "group with gates": {"combine_rows", "combine_backward"},
    }.get(name, set())
    assert set(seen.results) == expected


@pytest.mark.parametrize("name", every_operation())
def test_a_step_is_one_node_and_goes_through_the_dispatcher_once(name):
    """What the host's time of a step depends on: the derivatives above must cost nothing where none is wanted."""
    function, tensors = every_operation()[name]
    with torch.autograd.profiler.profile() as profile:
        y = function(*tensors)
        torch.autograd.grad(y, tensors, torch.ones_like(y))
    dispatched = [event.name for event in profile.function_events if event.name.startswith("smlora::")]
    assert len(dispatched) == 1, dispatched
    leaves = {type(edge).__name__ for edge, _ in y.grad_fn.next_functions if edge is not None}
    assert leaves == {"AccumulateGrad"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("adapter_dtype", [None, torch.float32])
def test_gradients_with_a_graph_are_those_without(device, dtype, adapter_dtype):
    """In every type: those with a graph are made by other operators, and rounded in other places."""
    layer = Layer(device=device, dtype=dtype, adapter_dtype=adapter_dtype, gate_dtype=adapter_dtype, y_rows="token", enk=True)
    function, leaves = function_of(layer)
    dy = torch.randn(layer.T, layer.N, device=device).to(dtype)
    plain = torch.autograd.grad(function(*leaves), leaves, dy)
    with_graph = torch.autograd.grad(function(*leaves), leaves, dy, create_graph=True)
    for name, got, expected in zip(layer.leaves(), with_graph, plain, strict=True):
        assert got.dtype == expected.dtype and got.requires_grad
        # Both are rounded, in different places.
        assert_close(got, expected, dtype, name, factor=2)


def test_autocast_around_backward_changes_nothing(device):
    layer = Layer(device=device, y_rows="token")
    function, leaves = function_of(layer)
    loss = function(*leaves).square().sum()

    def second():
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        return *gradients, *torch.autograd.grad(sum(g.square().sum() for g in gradients), leaves, retain_graph=True)

    expected = second()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        got = second()
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b, torch.float32)


def test_checkpointing_without_reentry_keeps_second_derivatives():
    layer = small_layer(y_rows="token")
    function, leaves = function_of(layer)

    def second(function):
        (dx,) = torch.autograd.grad(function(*leaves).square().sum(), leaves[0], create_graph=True)
        return torch.autograd.grad(dx.square().sum(), leaves)

    again = second(lambda *tensors: torch.utils.checkpoint.checkpoint(function, *tensors, use_reentrant=False))
    for got, expected in zip(again, second(function), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("operation", ["linear", "mlp", "activation", "combine", "group"])
def test_compiled_functions_refuse_a_second_derivative(operation):
    """As of any compiled function: torch raises."""
    torch._dynamo.reset()
    layer = small_layer(y_rows="token")
    rows, routing = torch.randn(6, 4, dtype=torch.float64), smlora.route(layer.choices, layer.E)
    mlp = SmallMlp("cpu", torch.float64)
    function, tensor = {
        "linear": (function_of(layer, ["A"])[0], layer.A),
        "mlp": (lambda x: mlp([x, *mlp.leaves[1:]]), mlp.leaves[0]),
        "activation": (smlora.gated_activation, rows),
        "combine": (lambda y: smlora.combine(y, layer.gates), rows),
        "group": (lambda x: smlora.group(x, routing, layer.gates), rows[:3]),
    }[operation]
    tensor = tensor.detach().requires_grad_()
    y = torch.compile(function, backend="aot_eager")(tensor)
    (first,) = torch.autograd.grad(y.sum(), tensor, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        (first.sum() + y.sum()).backward()


def plain_jvp_works():
    """What an error inside of torch.func may leave behind would show in the next call."""
    t = torch.randn(3)
    torch.testing.assert_close(jvp(torch.sin, (t,), (torch.ones(3),))[1], t.cos())
    return True


COMPILED = {
    "jvp": lambda f, t, v: jvp(f, (t,), (v,))[1],
    "jacfwd": lambda f, t, v: jacfwd(f)(t),
    "hessian": lambda f, t, v: hessian(lambda t: f(t).pow(2).sum())(t),
    "jvp of grad": lambda f, t, v: jvp(grad(lambda t: f(t).pow(3).sum()), (t,), (v,))[1],
    "jvp of a gradient without a graph": lambda f, t, v: jvp(
        lambda t: torch.no_grad()(vjp(f, t)[1])(f(t).detach())[0], (t,), (v,))[1],
}


@pytest.mark.parametrize("transform", COMPILED)
@pytest.mark.parametrize("name", every_operation())
def test_forward_mode_within_a_compiled_function(name, transform):
    torch._dynamo.reset()
    function, tensors = every_operation()[name]
    first, *rest = (tensor.detach() for tensor in tensors)
    tangent = torch.randn_like(first)

    def whole(t):
        return COMPILED[transform](lambda t: function(t, *rest), t, tangent)

    torch.testing.assert_close(torch.compile(whole, backend="aot_eager")(first), whole(first))
    assert plain_jvp_works()


def test_forward_mode_within_a_function_compiled_by_inductor():
    torch._dynamo.reset()
    h, tangent = torch.randn(5, 6), torch.randn(5, 6)

    def whole(h):
        return jvp(smlora.gated_activation, (h,), (tangent,))[1]

    torch.testing.assert_close(torch.compile(whole)(h), whole(h))
    assert plain_jvp_works()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", ["linear", "activation", "combine with gates", "group"])
def test_tangents_of_the_arguments_of_a_compiled_function_are_refused(name, requires_grad, backend):
    """With gradients by torch, as those of any compiled function."""
    torch._dynamo.reset()
    function, tensors = every_operation()[name]
    tensors = [tensor.detach().requires_grad_(requires_grad) for tensor in tensors]
    compiled = torch.compile(function, backend=backend)
    expected = compiled(*tensors)
    with forward_ad.dual_level():
        torch.testing.assert_close(compiled(*tensors), expected)
        with pytest.raises(NotImplementedError, match="no derivative|jvp"):
            compiled(forward_ad.make_dual(tensors[0], torch.ones_like(tensors[0])), *tensors[1:])


def graph_of(name):
    """Of an operation as make_fx traces it, below autograd, and the tensors that it takes."""
    function, tensors = every_operation()[name]
    tensors = [tensor.detach() for tensor in tensors]
    return make_fx(lambda *tensors: function(*tensors))(*tensors), tensors


def test_a_graph_of_the_mlp_keeps_its_derivatives():
    """It is one operator below autograd, too."""
    function, tensors = every_operation()["mlp"]
    graph = make_fx(function)(*[tensor.detach() for tensor in tensors])
    expected, got = (torch.autograd.grad(f(*tensors).square().sum(), tensors) for f in (function, graph))
    torch.testing.assert_close(got, expected)
    first, *rest = (tensor.detach() for tensor in tensors)
    expected, got = (jvp(lambda t, f=f: f(t, *rest), (first,), (first,)) for f in (function, graph))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", sorted(every_operation().keys() - {"mlp"}))
def test_raw_operators_refuse_derivatives(name):
    graph, tensors = graph_of(name)
    for i, tensor in enumerate(tensors):
        with pytest.raises(NotImplementedError, match="^smlora::.*: has no derivative"):
            graph(*tensors[:i], tensor.clone().requires_grad_(), *tensors[i + 1 :])
    first, *rest = tensors
    with pytest.raises(NotImplementedError, match="^smlora::.*: has no derivative"):
        jvp(lambda t: graph(t, *rest), (first,), (first,))
    assert plain_jvp_works()
    with pytest.raises(NotImplementedError, match="^smlora::.*: has no derivative"):
        grad(lambda t: graph(t, *rest).sum())(first)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="^smlora::.*: has no derivative"):
        graph(forward_ad.make_dual(first, first), *rest)


@pytest.mark.parametrize("name", every_operation())
def test_raw_operators_work_where_no_derivative_is_wanted(name):
    graph, tensors = graph_of(name)
    expected = graph(*tensors)
    with torch.no_grad():
        assert torch.equal(graph(*[tensor.clone().requires_grad_() for tensor in tensors]), expected)
    with forward_ad.dual_level():
        assert torch.equal(graph(*tensors), expected)
    torch.testing.assert_close(vmap(graph)(*[tensor.unsqueeze(0) for tensor in tensors])[0], expected)
    derivative = grad(lambda t: (graph(*tensors) * t).sum())(torch.ones((), dtype=expected.dtype))
    torch.testing.assert_close(derivative, expected.sum())


def test_every_operator_has_a_derivative_or_refuses_it():
    """Torch's own answer to a missing one is a gradient of zero and, later, a warning."""
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("smlora::")}
    names.remove("smlora::route")  # of whole numbers alone
    assert len(names) > 12
    for name in names:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "Autograd"), name
