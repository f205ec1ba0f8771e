"""The gated MLP of the experts as one operation: gate and up projection, activation, down projection, gates, sum."""

from typing import NamedTuple, Optional

import torch

from smlora._activation import (
    activation_backward,
    activation_op,
    activation_rows,
    activation_tangent,
    as_activation,
    differentiable_activation_gradient,
)
from smlora._arguments import ARGUMENT_ERRORS, check_number, check_tensor, described, in_callers_words
from smlora._derivative_of_linear import (
    Projection,
    Wants,
    differentiable_gradients,
    gradients_of_input,
    gradients_of_parameters,
    kept_for_backward,
    tangent,
)
from smlora._linear import check_adapter
from smlora._operator import Derivative, Operator, apply, save_for_tangents, tangent_rule, wants_derivative
from smlora._projection import GROUPED, TOKEN, forward, linear, unit_columns
from smlora._routing import check_routing


class Adapter(NamedTuple):
    """lora_A [E, R, in], lora_B [E, out, R], any strides, and the factor of their product."""

    lora_A: torch.Tensor
    lora_B: torch.Tensor
    scaling: float = 1.0


_MLP = (
    "Tensor x, Tensor W1, Tensor? A1, Tensor? B1, Tensor? bias1, Tensor W2, Tensor? A2, Tensor? B2, Tensor? bias2, "
    "Tensor? gates, Tensor sorted_scattered_idxs, Tensor expert_offsets, int top_k, float scaling1, float scaling2, "
    "int kind, int layout, float alpha, float limit"
)


def _names(projection):
    """What the arguments of a projection's operators are called here."""
    adapter = f"{projection}_lora.lora_A"
    return {
        "W": projection,
        "A": adapter,
        "B": f"{projection}_lora.lora_B",
        "bias": f"{projection}_bias",
        "scaling": f"{projection}_lora.scaling",
        "problem.R": f"rank of {adapter}",
        "problem.adapter_dtype": adapter,
        "problem.gate_dtype": "gates",
    }


_GATE_UP, _DOWN = _names("gate_up"), _names("down")
_NAMES = {f"{name}{number}": ours for number, names in ((1, _GATE_UP), (2, _DOWN)) for name, ours in names.items()}


def _run(project_up, act_and_project_down, x, W1, A1, B1, bias1, W2, A2, B2, bias2, gates, scattered, offsets, top_k,
         scaling1, scaling2, *activation):
    """project_up(x, *projection) gives h, act_and_project_down(h, *projection, *activation) the result."""
    routing = scattered, offsets, top_k
    try:
        h = project_up(x, W1, A1, B1, bias1, None, *routing, TOKEN, GROUPED, scaling1)
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error, _GATE_UP) from None
    try:
        return act_and_project_down(h, W2, A2, B2, bias2, gates, *routing, GROUPED, TOKEN, scaling2, *activation)
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error, _DOWN) from None


def _mlp(*arguments):
    return _run(
        lambda *up: forward.kernel(*up, False)[0],
        lambda h, *down: forward.kernel(activation_rows.kernel(h, *down[11:]), *down[:11], False)[0],
        *arguments,
    )


def _fake_mlp(x, W1, A1, B1, bias1, W2, *rest):
    return x.new_empty((x.shape[0], W2.shape[2]))


mlp = Operator(f"mlp({_MLP}) -> Tensor", _mlp, _fake_mlp)
# x, the weights and their biases; adapters and gates
mlp.autocast(positions=(0, 1, 4, 5, 8), companions=(2, 3, 6, 7, 9))


class _ActivatedLinear(Derivative):
    """The projection of a(h), which is computed again in backward."""

    @staticmethod
    def forward(ctx, keyset, h, *arguments):
        projection, activation = arguments[:11], arguments[11:]
        p, wants = Projection(*projection), Wants(*ctx.needs_input_grad[1:7])
        a = activation_rows.below_autograd(keyset, h, *activation)
        out, xa = forward.below_autograd(keyset, a, *projection, wants.B)
        ctx.save_for_backward(*kept_for_backward(h, p, wants, x_is_kept=wants.x), xa if wants.B else None)
        save_for_tangents(ctx, h, *projection[:7])
        ctx.numbers, ctx.activation = projection[7:], activation
        return out

    @staticmethod
    def backward(ctx, dout):
        h, *tensors, xa = ctx.saved_tensors
        p, wants, activation = Projection(*tensors, *ctx.numbers), Wants(*ctx.needs_input_grad[1:7]), ctx.activation
        nothing = [None] * 10
        if torch.is_grad_enabled():
            a = None if h is None else activation_op.call(h, *activation)
            da, *others = differentiable_gradients(dout, a, p, wants)
            dh = differentiable_activation_gradient(h, da, *activation) if wants.x else None
            return None, dh, *others, *nothing
        dout = unit_columns(dout)
        dh = yb = dgates = None
        # The gradient of the gates needs the activation before its own gradient is known; otherwise both are made from
        # one read of h.
        need_a = wants.A or wants.B or wants.W
        a = activation_rows.call(h, *activation) if wants.gates or (need_a and not wants.x) else None
        if wants.x or wants.gates:
            da, yb, dgates = gradients_of_input(dout, a, p, wants)
            if wants.x:
                dh, again = activation_backward.call(h, da, *activation, need_a and a is None)
                a = again if a is None else a
            del da
        parameters = gradients_of_parameters(dout, a, p, wants, xa, yb)
        return None, dh, *parameters, dgates if wants.gates else None, *nothing

    @tangent_rule
    def jvp(ctx, saved, th, *tangents):
        h, *tensors = saved
        a = activation_op.call(h, *ctx.activation)
        ta = None if th is None else activation_tangent(h, th, *ctx.activation)
        return tangent(a, Projection(*tensors, *ctx.numbers), (ta, *tangents[:5]))


def _autograd(keyset, *arguments):
    """Two nodes of the graph, so that h is an input of the second: kept are the inputs, h and, for trained B, two times
    M * R values."""
    if not wants_derivative(arguments):
        return mlp.below_autograd(keyset, *arguments)

    return _run(
        lambda *up: linear.autograd(keyset, *up),
        lambda *down: apply(_ActivatedLinear, keyset, *down),
        *arguments,
    )


mlp.register_autograd(_autograd)


def _adapter(name, adapter):
    if adapter is None:
        return None, None, 1.0
    if not isinstance(adapter, tuple) or len(adapter) not in (2, 3):
        raise ValueError(f"{name}: expected an Adapter, got {described(adapter)}")
    lora_A, lora_B, scaling = Adapter(*adapter)
    check_adapter(f"{name}.lora_A", lora_A, f"{name}.lora_B", lora_B)
    return lora_A, lora_B, check_number(f"{name}.scaling", scaling)


def moe_lora_mlp(x, gate_up, down, routing, gates=None, *, activation="swiglu", gate_up_lora: Optional[Adapter] = None,
                 down_lora: Optional[Adapter] = None, gate_up_bias=None, down_bias=None):
    """out_t = sum_j gates[t, j] * (a(x_t W1_e + b1_e) W2_e + b2_e) over the experts e of token t, with adapters on both
    projections, as one operation.

    x [T, K]; gate_up [E, K, 2 * I] and down [E, I, N], each with either of its last two dimensions contiguous (what Hugging
    Face stores, [E, out, in], is its transpose(1, 2)); gates [T, top_k], of x's type or fp32; gate_up_bias [E, 2 * I],
    down_bias [E, N]; adapters: (lora_A, lora_B, scaling) as `Adapter`. activation: a name or an `Activation`.

    Returns [T, N]. Kept for backward beside the inputs: h = x W1 + b1 [M, 2 * I] and, for each lora_B that is trained,
    M * R values. No rows are permuted in memory, none of the width N is kept for the gates' gradient, and the activation
    is computed again. Types: bfloat16, float16 and float32; float64 on the CPU. Under torch.autocast x, weights and biases are
    cast, adapters are not. Differentiable any number of times and in forward mode. Raises ValueError that names the argument,
    and NotImplementedError for what the device cannot do."""
    check_tensor("x", x, ("T", "K"))
    A1, B1, scaling1 = _adapter("gate_up_lora", gate_up_lora)
    A2, B2, scaling2 = _adapter("down_lora", down_lora)
    for name, weight in (("gate_up", gate_up), ("down", down)):
        check_tensor(name, weight, ("E", "in", "out"))
    check_routing(routing)
    if gate_up.shape[2] != 2 * down.shape[1]:
        raise ValueError(
            f"gate_up: expected [E, K, 2 * I] with I = {down.shape[1]} (down [E, I, N]), got {list(gate_up.shape)}"
        )
    arguments = (
        unit_columns(x), gate_up, A1, B1, gate_up_bias, down, A2, B2, down_bias,
        None if gates is None else gates.contiguous(), routing.sorted_scattered_idxs, routing.expert_offsets,
        routing.top_k, scaling1, scaling2, *as_activation(activation).numbers()
    )
    try:
        return mlp.call(*arguments)
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error, _NAMES) from None
