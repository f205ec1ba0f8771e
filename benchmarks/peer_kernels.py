"""The implementations that are timed beside each other. Each is a class with a name, `available()`, which says why not, and
for the operations that it has a method that gives what is to be called: it prepares everything that a user would have at
hand, and nothing that a user would have to wait for."""

import importlib
import sys

import torch
from axolotl_kernels import restrict_search
from timing import burst_ms

OPERATIONS = ("base", "forward", "dx", "lora_grad", "step")


class Peer:
    name = ""
    module = ""  # imported to see whether the peer is there
    note = ""

    @classmethod
    def available(cls):
        try:
            importlib.import_module(cls.module)
        except Exception as error:  # whatever a peer's import does wrong
            return f"{type(error).__name__}: {error}"
        return ""


class Smlora(Peer):
    name = "smlora"
    module = "smlora"
    note = "x by token, y scattered, dX summed to [T, K]"

    def weight(self, i):
        """[E, K, N], a tensor or a QuantizedWeight."""
        return i.W

    def _routing(self, i):
        import smlora

        return smlora.route(i.top_idx, i.shape.E)

    def _arguments(self, i):
        r = self._routing(i)
        return r.sorted_scattered_idxs, r.expert_offsets, i.shape.k

    def base(self, i):
        scattered, offsets, k = self._arguments(i)
        forward = torch.ops.smlora.forward
        return lambda: forward(i.x, i.W, None, None, None, None, scattered, offsets, k, 0, 1, 1.0, False)

    def forward(self, i):
        scattered, offsets, k = self._arguments(i)
        forward = torch.ops.smlora.forward
        W, *quantised = _operands(self.weight(i))
        return lambda: forward(i.x, W, i.A, i.B, None, None, scattered, offsets, k, 0, 1, i.scaling, True, *quantised)

    def dx(self, i):
        scattered, offsets, k = self._arguments(i)
        dx = torch.ops.smlora.backward_input
        W, *quantised = _operands(self.weight(i))
        return lambda: dx(
            i.dy, W, i.A, i.B, None, scattered, offsets, None, None, k, 0, 1, i.scaling, True, False, *quantised
        )

    def lora_grad(self, i):
        scattered, offsets, k = self._arguments(i)
        _, xa = self.forward(i)()
        _, yb, _ = self.dx(i)()
        gradients = torch.ops.smlora.backward_lora
        return lambda: gradients(
            i.x, i.dy, i.A, i.B, None, scattered, offsets, xa, yb, k, 0, 1, i.scaling, True, True
        )

    def step(self, i):
        import smlora

        routing, weight = self._routing(i), self.weight(i)
        return step_of(
            i, lambda x, A, B: smlora.moe_lora_linear(x, weight, routing, A, B, scaling=i.scaling)
        )


def _operands(weight):
    """What operators take for a weight."""
    return (weight,) if isinstance(weight, torch.Tensor) else weight.operands()


def axolotl_adapters(i):
    """A [E R, K], B [N, E R]."""
    return i.A.reshape(-1, i.shape.K), i.B.permute(1, 0, 2).reshape(i.shape.N, -1)


class SmloraDropIn(Peer):
    name = "smlora.scattermoe"
    module = "smlora.scattermoe"
    note = "step: through axolotl's interface, ScatterMoELoRA.apply"

    def step(self, i):
        from smlora.scattermoe.parallel_linear_lora import ScatterMoELoRA

        def linear(x, A, B):
            return ScatterMoELoRA.apply(x, i.W, i.shape.k, i.experts, i.scattered, i.offsets, A, B, i.scaling)

        return step_of(i, linear, *axolotl_adapters(i))


def step_of(i, linear, A=None, B=None):
    """Forward and backward of `linear(x, A, B)`, which gives the gradients of x, A and B."""
    leaves = [t.detach().requires_grad_() for t in (i.x, i.A if A is None else A, i.B if B is None else B)]

    return lambda: torch.autograd.grad(linear(*leaves), leaves, i.dy)


def faster(calls):
    """The one that takes less time on this input."""
    for call in calls:
        call()
    return min(calls, key=lambda call: burst_ms([call]))


class Axolotl(Peer):
    name = "axolotl"
    module = "axolotl.integrations.kernels.libs.scattermoe_lora.parallel_linear_lora"
    note = "its Triton kernels, searched among a handful of configurations; step: the faster of use_fused_dX on and off"

    def __init__(self):
        restrict_search()
        library = self.module.rpartition(".")[0]
        self.ops = importlib.import_module(library + ".kernels.ops")
        self.lora_ops = importlib.import_module(library + ".kernels.lora_ops")
        self.linear = importlib.import_module(self.module).ScatterMoELoRA
        self.fuses_dX = {}

    def base(self, i):
        return lambda: self.ops.scatter2scatter(i.x, i.W, i.experts, i.scattered, i.shape.k)

    def forward(self, i):
        A, B = axolotl_adapters(i)
        return lambda: self.lora_ops.scatter2scatter_lora(
            i.x, i.W, i.experts, i.scattered, i.shape.k, A, B, i.scaling
        )

    def dx(self, i):
        A, B = axolotl_adapters(i)
        return lambda: (
            self.lora_ops.scatter2scatter_lora_dX(
                i.dy, i.W, i.experts, i.scattered, 1, A, B, i.scaling, dy_grouped=False
            )
            .view(i.shape.T, i.shape.k, -1)
            .sum(1)
        )

    def lora_grad(self, i):
        A, B = axolotl_adapters(i)
        x, dy = i.x[i.scattered // i.shape.k], i.dy[i.scattered]
        return lambda: self.lora_ops.group_bwd_lora(dy, x, A, B, i.offsets, i.shape.E, i.scaling)

    def _step_with(self, i, use_fused_dX):
        def linear(x, A, B):
            return self.linear.apply(
                x, i.W, i.shape.k, i.experts, i.scattered, i.offsets, A, B, i.scaling, None, None, False, False,
                use_fused_dX, True
            )

        return step_of(i, linear, *axolotl_adapters(i))

    def step(self, i):
        if i.shape not in self.fuses_dX:
            ways = [self._step_with(i, True), self._step_with(i, False)]
            self.fuses_dX[i.shape] = faster(ways) is ways[0]
        return self._step_with(i, self.fuses_dX[i.shape])


class GroupedMM(Peer):
    name = "torch._grouped_mm"
    module = "torch"
    note = "rows gathered before; forward: three products"

    @classmethod
    def available(cls):
        return "" if hasattr(torch, "_grouped_mm") else "this torch has none"

    def base(self, i):
        rows, offsets = i.x[i.scattered // i.shape.k], i.offsets.int()
        return lambda: torch._grouped_mm(rows, i.W, offs=offsets)

    def forward(self, i):
        rows, offsets = i.x[i.scattered // i.shape.k], i.offsets.int()
        A, B = i.A.transpose(1, 2), i.B.transpose(1, 2)

        def run():
            rank_rows = torch._grouped_mm(rows, A, offs=offsets) * i.scaling
            return torch._grouped_mm(rows, i.W, offs=offsets) + torch._grouped_mm(rank_rows, B, offs=offsets)

        return run


class GatheredGroupedMM(GroupedMM):
    name = "gather + torch._grouped_mm"
    note = "the gather timed, too"

    def base(self, i):
        tokens, offsets = i.scattered // i.shape.k, i.offsets.int()
        return lambda: torch._grouped_mm(i.x[tokens], i.W, offs=offsets)

    forward = None


class DeepGEMM(Peer):
    name = "DeepGEMM"
    module = "deep_gemm"
    note = "base product of rows gathered and padded before; the faster of its two layouts of W"

    def base(self, i):
        import deep_gemm

        alignment = deep_gemm.get_mk_alignment_for_contiguous_layout()
        counts = torch.bincount(i.experts, minlength=i.shape.E).tolist()
        padded = [-(-count // alignment) * alignment for count in counts]
        rows = torch.zeros(sum(padded), i.shape.K, dtype=i.x.dtype, device="cuda")
        experts = torch.full((sum(padded),), -1, dtype=torch.int32, device="cuda")
        gathered = i.x[i.scattered // i.shape.k]
        at = source = 0
        for expert, (count, space) in enumerate(zip(counts, padded)):
            rows[at : at + count] = gathered[source : source + count]
            experts[at : at + space] = expert
            at, source = at + space, source + count
        out = torch.empty(rows.shape[0], i.shape.N, dtype=i.x.dtype, device="cuda")
        transposed = i.W.transpose(1, 2).contiguous()
        return faster([
            lambda: deep_gemm.m_grouped_bf16_gemm_nn_contiguous(rows, i.W, out, experts),
            lambda: deep_gemm.m_grouped_bf16_gemm_nt_contiguous(rows, transposed, out, experts),
        ])


class Eager(Peer):
    name = "eager"
    module = "torch"
    note = "a loop over the experts"

    def _linear(self, i, lora):
        tokens = torch.split(i.scattered, torch.bincount(i.experts, minlength=i.shape.E).tolist())

        def linear(x, A, B):
            out = x.new_empty(i.shape.M, i.shape.N)
            for e, flat in enumerate(tokens):
                rows = x[flat // i.shape.k]
                y = rows @ i.W[e]
                if lora:
                    y = y + (rows @ A[e].T) @ B[e].T * i.scaling
                out = out.index_copy(0, flat, y)
            return out

        return linear

    def base(self, i):
        linear = self._linear(i, False)
        return lambda: linear(i.x, None, None)

    def forward(self, i):
        linear = self._linear(i, True)
        return lambda: linear(i.x, i.A, i.B)

    def step(self, i):
        return step_of(i, self._linear(i, True))


PEERS = (Smlora, SmloraDropIn, Axolotl, DeepGEMM, GroupedMM, GatheredGroupedMM, Eager)


def peer_names():
    return ",".join(peer.name for peer in PEERS)


def found(text):
    """The peers that can be imported, of the names in `text`, or of all if it is empty; says on stderr what cannot."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in peer_names().split(",")]
    if unknown:
        sys.exit(f"--peer: expected some of {peer_names()}, got {','.join(unknown)}")
    peers = []
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        reason = peer.available()
        if reason:
            print(f"{peer.name}: left out ({reason})", file=sys.stderr)
        else:
            peers.append(peer())
    if not peers:
        sys.exit(f"--peer: none of {text or peer_names()} can be imported")
    return peers
