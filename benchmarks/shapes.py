"""The shapes that smlora is compared on, their inputs, and the floors of the operations."""

import dataclasses
import math

import torch


@dataclasses.dataclass(frozen=True)
class Shape:
    """T tokens, each sent to k of E experts: M = T k rows. K inputs, N outputs, rank R."""

    name: str
    E: int
    K: int
    N: int
    T: int
    k: int
    R: int = 16

    @property
    def M(self):
        return self.T * self.k

    @classmethod
    def parse(cls, text):
        E, K, N, R, k, T = (int(n) for n in text.split(","))
        return cls(text, E, K, N, T, k, R)

    def work(self, operation, experts):
        """(FLOP, bytes): every input read once, every output written once, in 16-bit types; weights of `experts` experts,
        those that have rows."""
        product = 2 * self.M * self.K * self.N
        adapter = 2 * self.M * self.R * (self.K + self.N)
        weights = 2 * experts * self.K * self.N
        adapters = 2 * experts * self.R * (self.K + self.N)
        x, y = 2 * self.T * self.K, 2 * self.M * self.N
        if operation == "base":
            return product, weights + x + y
        if operation in ("forward", "dx"):
            return product + adapter, weights + x + y + adapters
        return 2 * adapter, x + y + 2 * self.E * self.R * (self.K + self.N)  # dA and dB, zero where there are no rows

    def floor_ms(self, operation, experts, tflops, gbs):
        if operation == "step":
            return sum(self.floor_ms(part, experts, tflops, gbs) for part in ("forward", "dx", "lora_grad"))
        flop, traffic = self.work(operation, experts)
        return max(flop / tflops / 1e9, traffic / gbs / 1e6)


SHAPES = [
    Shape("qwen35_gate_up", 256, 2048, 1024, 2048, 8),
    Shape("qwen35_down", 256, 512, 2048, 2048, 8),
    Shape("olmoe_gate_up", 64, 2048, 2048, 2048, 8),
    Shape("qwen3_gate_up", 128, 2048, 1536, 2048, 8),
    Shape("qwen3_gate_up_16k", 128, 2048, 1536, 16384, 8),
    Shape("qwen3_down_16k", 128, 768, 2048, 16384, 8),
    Shape("mixtral_gate_up_8k", 8, 4096, 28672, 8192, 2),
    Shape("gptoss_gate_up_8k", 128, 2880, 5760, 8192, 4),
]


class Inputs:
    """One set of operands on the device of `generator`. W [E, K, N], A [E, R, K], B [E, N, R]; x [T, K] and dy [M, N] in the
    order of the choices. `skew`: "uniform" routing, "zipf" (expert e with weight 1 / (e + 1)), or "one" expert for
    everything."""

    def __init__(self, shape, skew, generator, dtype=torch.bfloat16):
        def normal(*size, scale=1.0):
            values = torch.empty(size, dtype=dtype, device=generator.device)
            return values.normal_(0, scale, generator=generator)

        self.shape = shape
        self.x = normal(shape.T, shape.K)
        self.dy = normal(shape.M, shape.N)
        self.W = normal(shape.E, shape.K, shape.N, scale=0.05)
        self.A = normal(shape.E, shape.R, shape.K, scale=0.05)
        self.B = normal(shape.E, shape.N, shape.R, scale=0.05)
        self.scaling = 2.0
        weights = torch.ones(shape.E, device=generator.device)
        if skew == "zipf":
            weights = 1 / torch.arange(1, shape.E + 1, device=generator.device)
        elif skew == "one":
            weights = torch.zeros(shape.E, device=generator.device)
            weights[0] = 1e9
            weights += 1e-9
        noise = -torch.log(-torch.log(torch.rand(shape.T, shape.E, device=generator.device, generator=generator)))
        self.top_idx = torch.topk(torch.log(weights) + noise, shape.k).indices
        if skew == "one":
            self.top_idx.zero_()
        flat = self.top_idx.flatten()
        self.experts, self.scattered = torch.sort(flat, stable=True)
        self.offsets = torch.cumsum(torch.bincount(flat, minlength=shape.E), 0)

    def active_experts(self):
        return self.experts.unique().numel()

    def bytes(self, weight_bits=16):
        """Of all operands, with so many bits for a value of W."""
        rest = sum(t.numel() * t.element_size() for t in (self.x, self.dy, self.A, self.B))
        return rest + self.W.numel() * weight_bits // 8


def chosen_shapes(texts, rank=None):
    """The shapes of these names or of E,K,N,R,k,T, all that have names if there are none, with another rank if it is given."""
    named = {shape.name: shape for shape in SHAPES}
    shapes = [named[text] if text in named else Shape.parse(text) for text in texts] or SHAPES
    return [dataclasses.replace(shape, R=rank) for shape in shapes] if rank else shapes


def operand_sets(shape, skew, seed, weight_bits=16):
    """As many as it takes for their bytes to pass three L2 caches, so that no call finds its operands there."""
    generator = torch.Generator(device="cuda").manual_seed(seed)
    sets = [Inputs(shape, skew, generator)]
    wanted = math.ceil(3 * torch.cuda.get_device_properties(0).L2_cache_size / sets[0].bytes(weight_bits))
    return sets + [Inputs(shape, skew, generator) for _ in range(wanted - 1)]
