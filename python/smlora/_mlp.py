"""The gated MLP of the experts as one operation: gate and up projection, activation, down projection, gates, sum."""

import functools
from typing import NamedTuple, Optional

import torch

from smlora._activation import (
    Activation,
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
    gradients,
    gradients_of_input,
    gradients_of_parameters,
    kept_for_backward,
    tangent,
)
from smlora._linear import check_adapter
from smlora._operator import Derivative, Operator, raw_calls, save_for_tangents, tangent_rule
from smlora._projection import GROUPED, TOKEN, extents, forward, quantized_operands, unit_columns
from smlora._routing import Routing, check_routing
from smlora.quantized import QuantizedWeight, Weight


class Adapter(NamedTuple):
    """lora_A [E, R, in], lora_B [E, out, R], any strides, and the factor of their product."""

    lora_A: torch.Tensor
    lora_B: torch.Tensor
    scaling: float = 1.0


_MLP = (
    "Tensor x, Tensor W1, Tensor? A1, Tensor? B1, Tensor? bias1, Tensor W2, Tensor? A2, Tensor? B2, Tensor? bias2, "
    "Tensor? gates, Tensor sorted_scattered_idxs, Tensor expert_offsets, int top_k, float scaling1, float scaling2, "
    "int kind, int layout, float alpha, float limit, Tensor[]? weight_parts1=None, int[]? weight_format1=None, "
    "Tensor[]? weight_parts2=None, int[]? weight_format2=None"
)


def _names(projection):
    """What the arguments of a projection's operators are called here."""
    adapter = f"{projection}_lora.lora_A"
    return {
        "W": projection,
        "weight_parts": projection,
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


def _parts(W1, A1, B1, bias1, W2, A2, B2, bias2, gates, scattered, offsets, top_k, scaling1, scaling2, kind, layout, alpha,
           limit, weight_parts1=None, weight_format1=None, weight_parts2=None, weight_format2=None):
    """The two projections and the activation's numbers, of what the operator takes after x."""
    routing = scattered, offsets, top_k
    up = Projection(W1, A1, B1, bias1, None, *routing, TOKEN, GROUPED, scaling1, weight_parts1, weight_format1)
    down = Projection(W2, A2, B2, bias2, gates, *routing, GROUPED, TOKEN, scaling2, weight_parts2, weight_format2)
    return up, down, (kind, layout, alpha, limit)


def _run(project, activate, x, up, down, activation, save_xa1=False, save_xa2=False):
    """(out, h, xa1, xa2)"""
    try:
        h, xa1 = project(x, *up[:11], save_xa1, *up[11:])
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error, _GATE_UP) from None
    try:
        out, xa2 = project(activate(h, *activation), *down[:11], save_xa2, *down[11:])
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error, _DOWN) from None
    return out, h, xa1, xa2


def _mlp(x, *rest):
    return _run(forward.kernel, activation_rows.kernel, x, *_parts(*rest))[0]


def _fake_mlp(x, *rest):
    _, down, _ = _parts(*rest)
    return x.new_empty((x.shape[0], extents(down.W, down.weight_format)[2]))


mlp = Operator(f"mlp({_MLP}) -> Tensor", _mlp, _fake_mlp)
# x, the weights and their biases; adapters and gates
mlp.autocast(positions=(0, 1, 4, 5, 8), companions=(2, 3, 6, 7, 9))


def _gradients_through_activation(run, dout, h, p, wants, xa, activation):
    """Of the projection of a(h), as Wants with dh for x. a is computed again; `run`: of raw_calls."""
    if run is None:
        a = None if h is None else activation_op.call(h, *activation)
        wanted = differentiable_gradients(dout, a, p, wants)
        return wanted._replace(x=differentiable_activation_gradient(h, wanted.x, *activation)) if wants.x else wanted
    dout = unit_columns(dout)
    dh = yb = dgates = None
    need_a = wants.A or wants.B or wants.W
    # All that is made of h is made from one read of it: dh, the gradient of the gates, and a. A bias has a part in the
    # gradient of the gates, so that it is made with the product, and needs a before.
    gates_with_dh = wants.x and wants.gates and p.bias is None
    gates_with_product = wants.gates and not gates_with_dh
    a = run(activation_rows, h, *activation) if gates_with_product or (need_a and not wants.x) else None
    if wants.x or wants.gates:
        da, yb, dgates = gradients_of_input(run, dout, a, p, wants, before_gates=gates_with_dh)
        if wants.x:
            gates = (p.gates, p.scattered) if gates_with_dh else ()
            dh, again, of_gates = run(activation_backward, h, da, *activation, need_a and a is None, *gates)
            a = again if a is None else a
            dgates = of_gates if gates_with_dh else dgates
        del da
    parameters = gradients_of_parameters(run, dout, a, p, wants, xa, yb)
    return Wants(dh, *parameters, dgates if wants.gates else None)


class _Mlp(Derivative):
    """Kept are the inputs, h and, for trained B, two times M * R values. h is a result, which only derivatives of the gradients
    see: theirs in h arrive at backward, which takes them on to what h was made from."""

    @staticmethod
    def forward(ctx, keys, x, *rest):
        up, down, activation = _parts(*rest)
        wants_up, wants_down = _wants(ctx)
        out, h, xa1, xa2 = _run(
            functools.partial(forward.below_autograd, keys), functools.partial(activation_rows.below_autograd, keys),
            x, up, down, activation, wants_up.B, wants_down.B
        )
        ctx.save_for_backward(
            *kept_for_backward(x, up, wants_up), *kept_for_backward(h, down, wants_down, x_is_kept=wants_down.x),
            up.scattered, up.offsets, xa1 if wants_up.B else None, xa2 if wants_down.B else None
        )
        save_for_tangents(ctx, h, x, *rest[:11])
        ctx.keys, ctx.numbers = keys, rest[11:]
        ctx.set_materialize_grads(False)  # dh is almost always none
        return out, h

    @staticmethod
    def backward(ctx, dout, dh):
        x, W1, A1, B1, bias1, _, h, W2, A2, B2, bias2, gates, *routing, xa1, xa2 = ctx.saved_tensors
        up, down, activation = _parts(W1, A1, B1, bias1, W2, A2, B2, bias2, gates, *routing, *ctx.numbers)
        wants_up, wants_down = _wants(ctx)
        run = raw_calls(ctx, dout, dh)
        of_up = of_down = Wants()
        if dout is not None:
            of_down = _gradients_through_activation(run, dout, h, down, wants_down, xa2, activation)
            dh = of_down.x if dh is None or not wants_down.x else dh + of_down.x
        if dh is not None:
            of_up = gradients(run, dh, x, up, wants_up, xa1)
        return None, *of_up[:5], *of_down[1:], *[None] * 13

    @tangent_rule
    def jvp(ctx, saved, *tangents):
        h, x, *tensors = saved
        up, down, activation = _parts(*tensors, *ctx.numbers)
        th = tangent(x, up, (*tangents[:5], None))
        ta = None if th is None else activation_tangent(h, th, *activation)
        t_out = tangent(activation_op.call(h, *activation), down, (ta, *tangents[5:10]))
        return t_out, torch.zeros_like(h) if th is None else th


def _wants(ctx):
    """Of the two projections: the second wants dh for anything before it."""
    needs = ctx.needs_input_grad
    return Wants(*needs[1:6], False), Wants(any(needs[1:6]), *needs[6:11])


mlp.differentiable(_Mlp, over=mlp)


def _adapter(name, adapter):
    if adapter is None:
        return None, None, 1.0
    if not isinstance(adapter, tuple) or len(adapter) not in (2, 3):
        raise ValueError(f"{name}: expected an Adapter, got {described(adapter)}")
    lora_A, lora_B, scaling = Adapter(*adapter)
    check_adapter(f"{name}.lora_A", lora_A, f"{name}.lora_B", lora_B)
    return lora_A, lora_B, check_number(f"{name}.scaling", scaling)


def moe_lora_mlp(x: torch.Tensor, gate_up: Weight, down: Weight, routing: Routing, gates: Optional[torch.Tensor] = None, *,
                 activation: str | Activation = "swiglu", gate_up_lora: Optional[Adapter] = None,
                 down_lora: Optional[Adapter] = None, gate_up_bias: Optional[torch.Tensor] = None,
                 down_bias: Optional[torch.Tensor] = None) -> torch.Tensor:
    """out_t = sum_j gates[t, j] * (a(x_t W1_e + b1_e) W2_e + b2_e) over the experts e of token t, with adapters on both
    projections, as one operation.

    x [T, K]; gate_up [E, K, 2 * I] and down [E, I, N], each a tensor or a `QuantizedWeight` with either of its last two
    dimensions contiguous (what Hugging Face stores, [E, out, in], is its transpose(1, 2)); gates [T, top_k], of x's type or
    fp32; gate_up_bias [E, 2 * I], down_bias [E, N]; adapters: (lora_A, lora_B, scaling) as `Adapter`. activation: a name or an
    `Activation`.

    Returns [T, N]. Kept for backward beside the inputs: h = x W1 + b1 [M, 2 * I] and, for each lora_B that is trained,
    M * R values. No rows are permuted in memory, none of the width N is kept for the gates' gradient, and the activation
    is computed again. Types: bfloat16, float16 and float32; float64 on the CPU. Under torch.autocast x, weights and biases are
    cast, adapters are not. Differentiable any number of times and in forward mode. Raises ValueError that names the argument,
    and NotImplementedError for what the device cannot do."""
    check_tensor("x", x, ("T", "K"))
    A1, B1, scaling1 = _adapter("gate_up_lora", gate_up_lora)
    A2, B2, scaling2 = _adapter("down_lora", down_lora)
    for name, weight in (("gate_up", gate_up), ("down", down)):
        if not isinstance(weight, QuantizedWeight):
            check_tensor(name, weight, ("E", "in", "out"))
    check_routing(routing)
    if gate_up.shape[2] != 2 * down.shape[1]:
        raise ValueError(
            f"gate_up: expected [E, K, 2 * I] with I = {down.shape[1]} (down [E, I, N]), got {list(gate_up.shape)}"
        )
    plain = not isinstance(gate_up, QuantizedWeight) and not isinstance(down, QuantizedWeight)
    # Autocast gives both the same.
    if plain and gate_up.dtype != down.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"down: expected {gate_up.dtype}, as gate_up, got {down.dtype}")
    quantized1 = quantized2 = ()
    if isinstance(gate_up, QuantizedWeight):
        gate_up, *quantized1 = quantized_operands("gate_up", gate_up)
    if isinstance(down, QuantizedWeight):
        down, *quantized2 = quantized_operands("down", down)
    arguments = (
        unit_columns(x), gate_up, A1, B1, gate_up_bias, down, A2, B2, down_bias,
        None if gates is None else gates.contiguous(), routing.sorted_scattered_idxs, routing.expert_offsets,
        routing.top_k, scaling1, scaling2, *as_activation(activation).numbers()
    )
    if quantized1 or quantized2:
        arguments += (*(quantized1 or (None, None)), *quantized2)
    try:
        return mlp.call(*arguments)
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error, _NAMES) from None
