"""A projection and a gated MLP written out in plain torch, one expert at a time, and random layers to try them on."""

import dataclasses
import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode

TOLERANCE = {torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float32: 1e-6, torch.float64: 1e-12}
"""Of a result by norm, relative: the table of workload/comparison.cpp (docs/design.md, "Accuracy")."""


def tolerance_of(dtype, numbers, terms=1):
    """Of a result of so many numbers, each a sum of `terms`. Errors of sums in fp32 grow with the root of their length; the
    roundings of a handful of numbers do not average out."""
    tolerance = TOLERANCE[dtype] * (math.sqrt(max(1, terms / 1024)) if dtype == torch.float32 else 1)
    return tolerance * (3 if numbers < 64 else 1)


def random_choices(T, top_k, E, device="cpu", left_out=False):
    """[T, top_k] different experts of each token; one expert has no rows. `left_out`: some entries are -1."""
    skipped = int(torch.randint(E, ()))
    weights = torch.ones(T, E)
    if E > top_k:
        weights[:, skipped] = 0
    choices = torch.multinomial(weights, top_k) if T else torch.zeros(0, top_k, dtype=torch.int64)
    if left_out:
        choices[torch.rand(T, top_k) < 0.2] = -1
    return choices.to(device)


@dataclasses.dataclass
class Layer:
    """A random projection. Everything that may be trained requires gradients."""

    E: int = 5
    K: int = 24
    N: int = 16
    R: int = 3
    top_k: int = 2
    T: int = 11
    dtype: torch.dtype = torch.float32
    adapter_dtype: torch.dtype = None
    gate_dtype: torch.dtype = None
    device: str = "cpu"
    x_rows: str = "token"
    y_rows: str = "scattered"
    enk: bool = False
    left_out: bool = False
    scaling: float = 0.75

    def __post_init__(self):
        E, K, N, R, T, k = self.E, self.K, self.N, self.R, self.T, self.top_k
        adapter = self.adapter_dtype or self.dtype

        def leaf(*shape, dtype=self.dtype, scale=1.0):
            return (torch.randn(shape, dtype=torch.float64) * scale).to(self.device, dtype).requires_grad_()

        self.x = leaf(T if self.x_rows == "token" else T * k, K)
        self.W = leaf(E, N, K, scale=K**-0.5) if self.enk else leaf(E, K, N, scale=K**-0.5)
        self.A, self.B = leaf(E, R, K, dtype=adapter, scale=K**-0.5), leaf(E, N, R, dtype=adapter)
        self.bias = leaf(E, N)
        gates = torch.rand(T, k, dtype=torch.float64) + 0.1
        self.gates = gates.to(self.device, self.gate_dtype or self.dtype).requires_grad_()
        self.choices = random_choices(T, k, E, self.device, self.left_out)

    @property
    def weight(self):
        return self.W.transpose(1, 2) if self.enk else self.W

    @property
    def uses_gates(self):
        return self.y_rows == "token"

    def leaves(self):
        tensors = dict(x=self.x, W=self.W, A=self.A, B=self.B, bias=self.bias)
        return dict(tensors, gates=self.gates) if self.uses_gates else tensors


def linear(layer, routing):
    """y in float64, differentiable, from the layer's values as they are rounded."""
    leaves = {name: leaf.detach().double().requires_grad_() for name, leaf in layer.leaves().items()}
    W = leaves["W"].transpose(1, 2) if layer.enk else leaves["W"]
    k, M = layer.top_k, layer.T * layer.top_k
    flat = routing.sorted_scattered_idxs.long()
    source = {"token": flat // k, "scattered": flat, "grouped": torch.arange(M, device=flat.device)}[layer.x_rows]
    rows, ends = [], [0, *routing.expert_offsets.tolist()]
    for e in range(layer.E):
        x = leaves["x"][source[ends[e] : ends[e + 1]]]
        A, B = leaves["A"][e], leaves["B"][e]
        rows.append(x @ W[e] + layer.scaling * (x @ A.T) @ B.T + leaves["bias"][e])
    rows.append(leaves["x"].new_zeros(M - ends[-1], layer.N))
    grouped = torch.cat(rows)
    if layer.y_rows == "grouped":
        return grouped, leaves
    scattered = torch.zeros_like(grouped).index_copy(0, flat, grouped)
    if layer.y_rows == "scattered":
        return scattered, leaves
    return (scattered.view(layer.T, k, layer.N) * leaves["gates"].unsqueeze(2)).sum(1), leaves


def error(got, expected):
    """By norm, relative. Not a number compares as too large."""
    got, expected = got.detach().double(), expected.detach().double().to(got.device)
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm().clamp_min(1e-30)) if got.numel() else 0.0


def assert_close(got, expected, dtype, what="", factor=1.0, terms=1):
    """`factor`: of the tolerance, for a result that is rounded more often than an operation's; say why where it is given."""
    measured, tolerance = error(got, expected), factor * tolerance_of(dtype, got.numel(), terms)
    assert measured <= tolerance, f"{what}: error {measured:.2e}, {dtype}, tolerance {tolerance:.2e}"


class OperatorsSeen(TorchDispatchMode):
    """While it is entered, the last result of every operator of smlora that is called, by name."""

    def __init__(self):
        super().__init__()
        self.results = {}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        library, _, name = function.name().partition("::")
        if library == "smlora":
            self.results[name] = result
        return result
