"""Projections and MLPs for tests of quantised weights."""

import smlora
import torch
from quantised import random_weight
from reference import Layer, random_choices

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


def compare(results, device, dtype):
    """The CPU computes the same sums; a GPU's kernels of quantised weights may order them otherwise."""
    for got, expected in zip(*results, strict=True):
        if device.type == "cpu":
            assert torch.equal(got, expected)
        else:
            error = (got - expected).double().norm() / expected.double().norm()
            assert error <= {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 1e-3}[dtype]
