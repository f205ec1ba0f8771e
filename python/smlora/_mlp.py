"""The gated MLP of the experts as one operation: gate and up projection, activation, down projection, gates, sum."""

from typing import NamedTuple, Optional

import torch

from smlora._activation import activation_backward, activation_rows, as_activation
from smlora._arguments import check_number, check_tensor, described, renamed
from smlora._linear import check_adapter
from smlora._operator import Derivative, Operator
from smlora._projection import (
    GROUPED,
    TOKEN,
    backward_bias,
    backward_input,
    backward_lora,
    backward_weight,
    forward,
    unit_columns,
)
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
    """What the arguments of a projection are called here."""
    return {
        "weight": projection,
        "bias": f"{projection}_bias",
        "scaling": f"{projection}_lora.scaling",
        "lora_A": f"{projection}_lora.lora_A",
        "lora_B": f"{projection}_lora.lora_B",
    }


def _run(call_forward, call_activation, x, W1, A1, B1, bias1, W2, A2, B2, bias2, gates, scattered, offsets, top_k,
         scaling1, scaling2, *activation, save_xa1=False, save_xa2=False):
    """(out, h, xa1, xa2)"""
    routing = scattered, offsets, top_k
    try:
        h, xa1 = call_forward(x, W1, A1, B1, bias1, None, *routing, TOKEN, GROUPED, scaling1, save_xa1)
    except ValueError as error:
        raise renamed(error, _names("gate_up")) from None
    a = call_activation(h, *activation)
    try:
        out, xa2 = call_forward(a, W2, A2, B2, bias2, gates, *routing, GROUPED, TOKEN, scaling2, save_xa2)
    except ValueError as error:
        raise renamed(error, _names("down")) from None
    return out, h, xa1, xa2


def _mlp(*arguments):
    return _run(forward.call, activation_rows.call, *arguments)[0]


def _fake_mlp(x, W1, A1, B1, bias1, W2, *rest):
    return x.new_empty((x.shape[0], W2.shape[2]))


mlp = Operator(f"mlp({_MLP}) -> Tensor", _mlp, _fake_mlp)
# x, the weights and their biases; adapters and gates
mlp.autocast(positions=(0, 1, 4, 5, 8), companions=(2, 3, 6, 7, 9))


class _Mlp(Derivative):
    """Kept are the inputs, h and, for trained B, two times M * R values. The activation is computed again."""

    @staticmethod
    def forward(ctx, keyset, *arguments):
        x, W1, A1, B1, bias1, W2, A2, B2, bias2, gates, scattered, offsets, top_k, *numbers = arguments
        wants = ctx.needs_input_grad
        out, h, xa1, xa2 = _run(
            lambda *rest: forward.below_autograd(keyset, *rest),
            lambda *rest: activation_rows.below_autograd(keyset, *rest),
            *arguments, save_xa1=wants[4], save_xa2=wants[8],
        )
        first = any(wants[1:6])  # anything before the activation
        ctx.save_for_backward(
            x if wants[2] or wants[3] or wants[4] else None, W1 if wants[1] or wants[2] else None, A1, B1, W2, A2, B2,
            bias2 if wants[10] else None, gates, scattered, offsets,
            h if first or wants[6] or wants[7] or wants[8] or wants[10] else None,
            xa1 if wants[4] else None, xa2 if wants[8] else None
        )
        ctx.top_k, ctx.numbers = top_k, numbers
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dout):
        x, W1, A1, B1, W2, A2, B2, bias2, gates, scattered, offsets, h, xa1, xa2 = ctx.saved_tensors
        scaling1, scaling2, *activation = ctx.numbers
        _, want_x, want_W1, want_A1, want_B1, want_b1, want_W2, want_A2, want_B2, want_b2, want_gates, *_ = (
            ctx.needs_input_grad
        )
        routing = scattered, offsets
        top_k = ctx.top_k
        dout = unit_columns(dout)
        first = want_x or want_W1 or want_A1 or want_B1 or want_b1
        dx = dW1 = dA1 = dB1 = db1 = dW2 = dA2 = dB2 = db2 = dgates = yb = dh = None

        # The gradient of the gates needs the activation before its own gradient is known; otherwise both are made from
        # one read of h.
        need_a = want_A2 or want_B2 or want_W2
        a = activation_rows.call(h, *activation) if want_gates or (need_a and not first) else None
        if first or want_gates:
            da, yb, dgates = backward_input.call(dout, W2, A2, B2, gates, *routing, a if want_gates else None, bias2,
                                                 top_k, GROUPED, TOKEN, scaling2, want_A2, want_gates)
            if first:
                dh, again = activation_backward.call(h, da, *activation, need_a and a is None)
                a = again if a is None else a
            del da
        if want_A2 or want_B2:
            dA2, dB2 = backward_lora.call(a, dout, A2, B2, gates, *routing, xa2, yb if want_A2 else None, top_k, GROUPED,
                                          TOKEN, scaling2, want_A2, want_B2)
        if want_W2:
            dW2 = backward_weight.call(a, dout, W2, gates, *routing, top_k, GROUPED, TOKEN)
        if want_b2:
            db2 = backward_bias.call(dout, gates, *routing, top_k, TOKEN)
        del a, yb
        yb = None
        if want_x:
            dx, yb, _ = backward_input.call(dh, W1, A1, B1, None, *routing, None, None, top_k, TOKEN, GROUPED, scaling1,
                                            want_A1, False)
        if want_A1 or want_B1:
            dA1, dB1 = backward_lora.call(x, dh, A1, B1, None, *routing, xa1, yb if want_A1 else None, top_k, TOKEN,
                                          GROUPED, scaling1, want_A1, want_B1)
        if want_W1:
            dW1 = backward_weight.call(x, dh, W1, None, *routing, top_k, TOKEN, GROUPED)
        if want_b1:
            db1 = backward_bias.call(dh, None, *routing, top_k, GROUPED)
        gradients = (dx, dW1, dA1, dB1, db1, dW2, dA2, dB2, db2, dgates)
        wanted = ctx.needs_input_grad[1:11]
        return None, *[gradient if want else None for gradient, want in zip(gradients, wanted)], *[None] * 9


mlp.differentiable(_Mlp, over=mlp)


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
    is computed again. Under torch.autocast x, weights and biases are cast, adapters are not."""
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
    return mlp.call(
        unit_columns(x), gate_up, A1, B1, gate_up_bias, down, A2, B2, down_bias,
        None if gates is None else gates.contiguous(), routing.sorted_scattered_idxs, routing.expert_offsets,
        routing.top_k, scaling1, scaling2, *as_activation(activation).numbers()
    )
