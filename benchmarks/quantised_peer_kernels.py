"""Implementations on quantised experts that are timed beside each other. All get the same bytes, `i.weight`, a
smlora.QuantizedWeight whose view is [E, K, N] and which is stored [E, N, K], as checkpoints have it. Rows come by token, go
out scattered, and dX is summed over a token's choices."""

import importlib
import sys
import types

import torch

import axolotl_kernels
from axolotl_kernels import PACKAGE, torchao_tensor
from peer_kernels import Axolotl, Peer, Smlora, axolotl_adapters, step_of

ENCODINGS = ("mxfp4", "nf4", "fp8", "nvfp4", "int4")

# ---- smlora -----------------------------------------------------------------------------------------------------------


class SmloraQuantised(Smlora):
    def __init__(self, encoding, arranged=True):
        self.encoding, self.arranged = encoding, arranged
        self.name = f"smlora:{encoding}" + ("" if arranged else ":unarranged")

    def weight(self, i):
        return i.weight.arranged() if self.arranged else i.weight


class SmloraPlain(Smlora):
    name = "smlora:bf16"
    encoding = "bf16"


# ---- axolotl ----------------------------------------------------------------------------------------------------------


class AxolotlQuantised(Axolotl):
    """Its product with adapters of the experts that have rows: it takes these experts' weights and adapters out of all. Which
    they are is found before. `weights(i, active)` of a subclass gives what makes their weights, [active, K, N]."""

    needs = ()

    def __init__(self):
        super().__init__()
        self.selection = importlib.import_module(f"{PACKAGE}.selective_dequant")
        self.mx = importlib.import_module(f"{PACKAGE}.mx_weights")

    @classmethod
    def available(cls):
        for module in (f"{PACKAGE}.selective_dequant", f"{PACKAGE}.kernels.lora_ops", *cls.needs):
            try:
                importlib.import_module(module)
            except Exception as error:  # whatever a peer's import does wrong
                return f"{type(error).__name__}: {error}"
        return ""

    def _choice(self, i):
        """(experts with rows, the expert of each row among them, their offsets)"""
        active = self.selection.get_active_experts(i.experts, i.shape.E)
        return active, *self.selection.remap_expert_indices(i.experts, i.offsets, active, i.shape.E)

    def forward(self, i):
        active, experts, _ = self._choice(i)
        A, B = axolotl_adapters(i)
        weights = self.weights(i, active)

        def run():
            chosen = self.selection.selective_lora_weights(A, B, active, i.shape.E)
            return self.multiply(i.x, weights(), experts, i.scattered, i.shape.k, *chosen, i.scaling)

        return run

    def dx(self, i):
        active, experts, _ = self._choice(i)
        A, B = axolotl_adapters(i)
        weights = self.weights(i, active)

        def run():
            chosen = self.selection.selective_lora_weights(A, B, active, i.shape.E)
            rows = self.multiply_dX(i.dy, weights(), experts, i.scattered, 1, *chosen, i.scaling, dy_grouped=False)
            return rows.view(i.shape.T, i.shape.k, -1).sum(1)

        return run

    def _step_with(self, i, use_fused_dX):
        active, experts, offsets = self._choice(i)
        weights = self.weights(i, active)

        def linear(x, A, B):
            chosen = self.selection.selective_lora_weights(A, B, active, i.shape.E)
            W = weights()
            W.recipe = weights  # backward makes it again, as in a model, which has no memory for every layer's
            return self.linear.apply(
                x, W, i.shape.k, experts, i.scattered, offsets, *chosen, i.scaling, None, None, False, False, use_fused_dX, True
            )

        return step_of(i, linear, *axolotl_adapters(i))

    def multiply(self, *arguments):
        return self.lora_ops.scatter2scatter_lora(*arguments)

    def multiply_dX(self, *arguments, **options):
        return self.lora_ops.scatter2scatter_lora_dX(*arguments, **options)


class AxolotlNF4(AxolotlQuantised):
    name = "axolotl:nf4"
    encoding = "nf4"
    note = "selective dequantisation of bitsandbytes' bytes by its Triton kernel, again in backward"

    def weights(self, i, active):
        decode = importlib.import_module(f"{PACKAGE}.selective_dequant_kernel").selective_dequant_nf4_triton
        w, shape = i.weight, (i.shape.N, i.shape.K)
        return lambda: decode(w.codes, w.scales, active, shape, w.block, torch.bfloat16, w.table).transpose(1, 2)


class AxolotlMXFP4(AxolotlQuantised):
    name = "axolotl:mxfp4"
    encoding = "mxfp4"
    needs = ("torchao.prototype.mx_formats.mx_tensor",)
    note = "selective dequantisation by torchao, again in backward"

    def weights(self, i, active):
        module = types.SimpleNamespace(gate_up_proj=torchao_tensor(i.weight))
        return lambda: self.selection.selective_expert_weights(module, "gate_up_proj", active).transpose(1, 2)


class AxolotlFused(AxolotlQuantised):
    """Its Triton kernels that decode on the way."""

    def step(self, i):
        return self._step_with(i, True)

    def multiply(self, *arguments):
        return self.lora_ops.scatter2scatter_lora_mx(*arguments)

    def multiply_dX(self, *arguments, **options):
        return self.lora_ops.scatter2scatter_lora_dX_mx(*arguments, **options)


class AxolotlFusedMXFP4(AxolotlFused):
    name = "axolotl:mxfp4:fused"
    encoding = "mxfp4"
    needs = AxolotlMXFP4.needs
    note = "products that decode; what it takes for models of MXFP4"

    def weights(self, i, active):
        tensor = torchao_tensor(i.weight)
        return lambda: self.mx.selective_mx_weights_fwd(tensor, active)


class AxolotlFusedNVFP4(AxolotlFused):
    name = "axolotl:nvfp4:fused"
    encoding = "nvfp4"
    needs = ("torchao.prototype.mx_formats.nvfp4_tensor",)
    note = "products that decode, scales made fp32 each time; Marlin, which only its whole layers can take, is not timed"

    def weights(self, i, active):
        tensor = torchao_tensor(i.weight)
        return lambda: self.mx.selective_nvfp4_weights_fwd(tensor, active)


# ---- all experts decoded, and torch's grouped product ---------------------------------------------------------------------

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def _values(codes, table, low_first):
    """fp32 [.., 2 n] of n bytes."""
    low, high = table[(codes & 15).int()], table[(codes >> 4).int()]
    return torch.stack((low, high) if low_first else (high, low), -1).flatten(-2)


def _scaled(values, scales):
    """bf16, each scale for as many values of a row as there are."""
    blocks = values.unflatten(-1, (scales.shape[-1], -1))
    return (blocks * scales.unsqueeze(-1)).flatten(-2).to(torch.bfloat16)


def decode_mxfp4(codes, scales, table):
    return _scaled(_values(codes, table, True), (scales.int() << 23).view(torch.float32))


def decode_nvfp4(codes, scales, global_scales, table):
    return _scaled(_values(codes, table, True), scales.float() * global_scales.unsqueeze(-1))


def decode_nf4(codes, scales, table):
    return _scaled(_values(codes.flatten(), table, False), scales)


def _torch_decode(i):
    """Of plain torch operations, which torch.compile makes one kernel of."""
    w = i.weight
    e2m1 = torch.tensor([*_E2M1, *(-value for value in _E2M1)], device=w.device)
    decode, arguments = {
        "mxfp4": lambda: (decode_mxfp4, (w.codes, w.scales.view(torch.uint8), e2m1)),
        "nvfp4": lambda: (decode_nvfp4, (w.codes, w.scales, w.global_scales, e2m1)),
        "nf4": lambda: (decode_nf4, (w.codes, w.scales, w.table)),
    }[w.encoding]()
    if w.device.type == "cuda":
        decode = torch.compile(decode, dynamic=False)
    return lambda: decode(*arguments).view(i.shape.E, i.shape.N, i.shape.K)


def _bitsandbytes_decode(i):
    from bitsandbytes.functional import QuantState, dequantize_4bit

    w = i.weight
    state = QuantState(absmax=w.scales, shape=torch.Size((i.shape.E, i.shape.N, i.shape.K)), code=w.table, blocksize=w.block,
                       quant_type="nf4", dtype=torch.bfloat16)
    codes = w.codes.view(-1, 1)
    return lambda: dequantize_4bit(codes, state)


class _Grouped:
    """Products of an Inputs with torch._grouped_mm."""

    def __init__(self, i, decode):
        self.i, self.decode = i, decode
        self.offsets = i.offsets.int()
        self.tokens = i.scattered // i.shape.k
        self.inverse = torch.empty_like(i.scattered)
        self.inverse[i.scattered] = torch.arange(i.shape.M, device=i.scattered.device)

    def product(self, rows, weights):
        return torch._grouped_mm(rows, weights, offs=self.offsets)

    def forward(self, x, A, B):
        """(y, grouped rows of x, x A^T)"""
        rows = x.index_select(0, self.tokens)
        xa = self.product(rows, A.transpose(1, 2))
        y = self.product(rows, self.decode().transpose(1, 2))
        y.add_(self.product(xa, B.transpose(1, 2)), alpha=self.i.scaling)
        return y.index_select(0, self.inverse), rows, xa

    def backward(self, dy, A, B):
        """(dX, grouped rows of dy, scaling dy B)"""
        rows = dy.index_select(0, self.i.scattered)
        yb = self.product(rows, B).mul_(self.i.scaling)
        dx = self.product(rows, self.decode())
        dx.add_(self.product(yb, A))
        return dx.index_select(0, self.inverse).view(self.i.shape.T, self.i.shape.k, -1).sum(1), rows, yb


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, A, B, grouped):
        y, rows, xa = grouped.forward(x, A, B)
        ctx.grouped = grouped
        ctx.save_for_backward(rows, xa, A, B)
        return y

    @staticmethod
    def backward(ctx, dy):
        rows, xa, A, B = ctx.saved_tensors
        grouped = ctx.grouped
        dx, dy_rows, yb = grouped.backward(dy, A, B)
        dA = grouped.product(yb.t(), rows)
        dB = grouped.product(dy_rows.t(), xa).mul_(grouped.i.scaling)
        return dx, dA, dB, None


class DecodedGroupedMM(Peer):
    """As Unsloth does it: every expert is decoded, and again in backward; then torch._grouped_mm of the weights and of each
    adapter. One autograd function without a copy too many, which is less than a user of PEFT waits for."""

    note = "all experts decoded by torch.compile of plain torch, again in backward"
    decode = staticmethod(_torch_decode)

    def __init__(self, encoding):
        self.encoding = encoding
        self.name = f"grouped_mm:{encoding}"

    @staticmethod
    def available():
        return "" if hasattr(torch, "_grouped_mm") else "this torch has no _grouped_mm"

    def forward(self, i):
        grouped = _Grouped(i, self.decode(i))
        return lambda: grouped.forward(i.x, i.A, i.B)

    def dx(self, i):
        grouped = _Grouped(i, self.decode(i))
        return lambda: grouped.backward(i.dy, i.A, i.B)

    def step(self, i):
        grouped = _Grouped(i, self.decode(i))
        return step_of(i, lambda x, A, B: _GroupedLinear.apply(x, A, B, grouped))


class BitsandbytesGroupedMM(DecodedGroupedMM):
    note = "all experts decoded by bitsandbytes' kernel, again in backward"
    decode = staticmethod(_bitsandbytes_decode)

    def __init__(self, encoding):
        super().__init__(encoding)
        self.name += ":bitsandbytes"

    @staticmethod
    def available():
        try:
            importlib.import_module("bitsandbytes")
        except Exception as error:  # whatever a peer's import does wrong
            return f"{type(error).__name__}: {error}"
        return DecodedGroupedMM.available()


# ---- which there are ------------------------------------------------------------------------------------------------------


def contestants(names, encodings, unarranged, axolotl):
    """Those of `names` (smlora, axolotl, grouped_mm) on `encodings` that can be imported, smlora in bf16 first; says on stderr
    what cannot. axolotl: a checkout, or None."""
    if axolotl and "axolotl" in names:
        axolotl_kernels.load(axolotl)
    makers = []
    for encoding in encodings:
        if "smlora" in names:
            makers.append((f"smlora:{encoding}", SmloraQuantised, (encoding,)))
            if unarranged:
                makers.append((f"smlora:{encoding}:unarranged", SmloraQuantised, (encoding, False)))
        if "axolotl" in names:
            kinds = (AxolotlNF4, AxolotlMXFP4, AxolotlFusedMXFP4, AxolotlFusedNVFP4)
            makers += [(kind.name, kind, ()) for kind in kinds if kind.encoding == encoding]
        if "grouped_mm" in names:
            if encoding in ("mxfp4", "nf4", "nvfp4"):
                makers.append((f"grouped_mm:{encoding}", DecodedGroupedMM, (encoding,)))
            if encoding == "nf4":
                makers.append(("grouped_mm:nf4:bitsandbytes", BitsandbytesGroupedMM, (encoding,)))
    found = [SmloraPlain()]
    for name, kind, arguments in makers:
        reason = kind.available()
        if reason:
            print(f"{name}: left out ({reason})", file=sys.stderr)
        else:
            found.append(kind(*arguments))
    return found
