"""The projection of a Mixture-of-Experts layer as a function and as a module."""

import math
from typing import Optional

import torch

from smlora import _native
from smlora import _derivative_of_linear  # noqa: F401: registers the derivative
from smlora._arguments import ARGUMENT_ERRORS, INT64_MAX, check_number, check_tensor, check_whole, described, in_callers_words
from smlora._projection import ROW_ORDERS, linear, quantized_operands, unit_columns
from smlora._routing import Routing, check_routing
from smlora._without_gradients import without_gradients
from smlora.quantized import QuantizedParameters, QuantizedWeight, Weight


def adapter_views(lora_A: torch.Tensor, lora_B: torch.Tensor, num_experts: int, *,
                  layout: str = "expert_major") -> tuple[torch.Tensor, torch.Tensor]:
    """The views A [E, R, K] and B [E, N, R] that `moe_lora_linear` takes, of adapters that are stored as two matrices.

    "expert_major": A [E * R, K] and B [N, E * R], whose column e * R + r belongs to expert e (axolotl's layout).
    "peft": A [E * R, K] and B [N, R * E], whose column r * E + e belongs to expert e (PEFT's target_parameters).
    "peft_transposed": as "peft" for a parameter that is stored [E, in, out] and was wrapped with in and out swapped (PEFT
    before 0.19.1, and models whose weights are [E, K, N]): A [R * E, N] and B [K, R * E] of the module are returned with
    the roles that x W needs.

    Nothing is copied: gradients arrive in the parameters."""
    check_tensor("lora_A", lora_A, ("E * R", "in"))
    check_tensor("lora_B", lora_B, ("out", "E * R"))
    E = check_whole("num_experts", num_experts, 1, _native.max_experts)
    columns = lora_A.shape[0]
    if columns % E != 0 or lora_B.shape[1] != columns:
        raise ValueError(
            f"lora_A, lora_B: expected [E * R, in] and [out, E * R] with E = {E}, got {list(lora_A.shape)} and "
            f"{list(lora_B.shape)}"
        )
    R = columns // E
    A = lora_A.view(E, R, lora_A.shape[1])
    if layout == "expert_major":
        return A, lora_B.view(lora_B.shape[0], E, R).permute(1, 0, 2)
    B = lora_B.view(lora_B.shape[0], R, E).permute(2, 0, 1)
    if layout == "peft":
        return A, B
    if layout == "peft_transposed":
        return B.transpose(1, 2), A.transpose(1, 2)
    raise ValueError(f'layout: expected "expert_major", "peft" or "peft_transposed", got {layout!r}')


def _row_order(name, value):
    if not isinstance(value, str) or value not in ROW_ORDERS:
        raise ValueError(f'{name}: expected "token", "scattered" or "grouped", got {value!r}')
    return ROW_ORDERS[value]


def check_adapter(name_A, lora_A, name_B, lora_B):
    if (lora_A is None) != (lora_B is None):
        given, missing = (name_A, name_B) if lora_B is None else (name_B, name_A)
        raise ValueError(f"{name_A}, {name_B}: expected both or neither, got {given} without {missing}")
    if lora_A is not None:
        check_tensor(name_A, lora_A, ("E", "R", "in"))


def moe_lora_linear(x: torch.Tensor, weight: Weight, routing: Routing, lora_A: Optional[torch.Tensor] = None,
                    lora_B: Optional[torch.Tensor] = None, *, scaling: float | torch.Tensor = 1.0,
                    bias: Optional[torch.Tensor] = None, gates: Optional[torch.Tensor] = None, x_rows: str = "token",
                    y_rows: str = "scattered") -> torch.Tensor:
    """y_i = x_i W_e + scaling (x_i A_e^T) B_e^T + b_e for every row i and the expert e that it was routed to.

    x: [T, K] with x_rows="token"; [M, K] with "scattered" (a row for each choice) or "grouped" (sorted by expert).
    weight: [E, K, N], a tensor or a `QuantizedWeight`. Either N or K is contiguous: what Hugging Face stores, [E, N, K], is
    `weight.transpose(1, 2)`. A quantised weight is decoded to x's type and has no gradient.
    routing: of `smlora.route`.
    lora_A [E, R, K] and lora_B [E, N, R]: any strides (see `adapter_views`), of x's type or fp32; R from 1 to 256.
    bias [E, N], of x's type. gates [T, top_k], of x's type or fp32, only with y_rows="token".

    Returns y: [T, N] with y_rows="token", summed over a token's rows, each times its gate; else [M, N].

    Differentiable in every floating-point tensor, any number of times and in forward mode; what needs no gradient costs
    nothing. Kept for backward: the inputs and, if lora_B is trained, M * R values. Types: bfloat16, float16 and float32;
    float64 on the CPU. Under torch.autocast x, weight and bias are cast, adapters are not. Raises ValueError that names the
    argument, and NotImplementedError for what the device cannot do."""
    check_tensor("x", x, ("rows", "K"))
    quantized = ()
    if isinstance(weight, QuantizedWeight):
        weight, *quantized = quantized_operands("weight", weight)
    else:
        check_tensor("weight", weight, ("E", "K", "N"))
    check_adapter("lora_A", lora_A, "lora_B", lora_B)
    check_routing(routing)
    if gates is not None and y_rows != "token":
        raise ValueError(f'gates: expected none unless y_rows is "token", got some with y_rows={y_rows!r}')
    arguments = (
        unit_columns(x), weight, lora_A, lora_B, bias, None if gates is None else gates.contiguous(),
        routing.sorted_scattered_idxs, routing.expert_offsets, routing.top_k, _row_order("x_rows", x_rows),
        _row_order("y_rows", y_rows), check_number("scaling", scaling)
    )
    if quantized:
        arguments += tuple(quantized)
    try:
        return linear.call(*arguments)
    except ARGUMENT_ERRORS as error:
        raise in_callers_words(error) from None


def _quantized_parameters(weight, shape):
    made = weight if isinstance(weight, QuantizedParameters) else None
    weight = weight if made is None else made()
    if not isinstance(weight, QuantizedWeight) or weight.shape != shape:
        got = weight if isinstance(weight, QuantizedWeight) else described(weight)
        raise ValueError(f"weight: expected a QuantizedWeight {list(shape)}, got {got}")
    return QuantizedParameters(weight) if made is None else made


class MoELoRALinear(torch.nn.Module):
    """`moe_lora_linear` with parameters: a frozen `weight` [E, out_features, in_features] as Hugging Face stores it, a
    frozen `bias` [E, out_features] if asked for, and `lora_A` [E, rank, in_features] and `lora_B` [E, out_features, rank]
    to be trained. rank 0: no adapter. lora_A starts as torch.nn.Linear's weights do and lora_B as zero, so that the module
    starts as its base; scaling is lora_alpha / rank. weight: a `QuantizedWeight` of that shape instead, or
    `QuantizedParameters`, which the module's `weight` is then."""

    def __init__(self, num_experts: int, in_features: int, out_features: int, rank: int, *,
                 lora_alpha: Optional[float] = None, bias: bool = False, dtype: Optional[torch.dtype] = None,
                 device: Optional[torch.device | str | int] = None, adapter_dtype: Optional[torch.dtype] = None,
                 weight: Optional[Weight] = None) -> None:
        super().__init__()
        num_experts = check_whole("num_experts", num_experts, 1, _native.max_experts)
        in_features = check_whole("in_features", in_features, 1, INT64_MAX)
        out_features = check_whole("out_features", out_features, 1, INT64_MAX)
        rank = check_whole("rank", rank, 0, _native.max_rank)
        lora_alpha = rank if lora_alpha is None else check_number("lora_alpha", lora_alpha)
        self.num_experts, self.in_features, self.out_features, self.rank = num_experts, in_features, out_features, rank
        self.scaling = lora_alpha / rank if rank else 1.0

        def parameter(*shape, trained, dtype=dtype):
            return torch.nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=trained)

        if weight is None:
            self.weight = parameter(num_experts, out_features, in_features, trained=False)
        else:
            self.weight = _quantized_parameters(weight, (num_experts, out_features, in_features))
        self.bias = parameter(num_experts, out_features, trained=False) if bias else None
        adapter_dtype = dtype if adapter_dtype is None else adapter_dtype
        self.lora_A = parameter(num_experts, rank, in_features, trained=True, dtype=adapter_dtype) if rank else None
        self.lora_B = parameter(num_experts, out_features, rank, trained=True, dtype=adapter_dtype) if rank else None
        self.reset_parameters()

    @without_gradients
    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.in_features)
        for tensor in (self.weight, self.bias, self.lora_A):
            if isinstance(tensor, torch.Tensor):
                tensor.uniform_(-bound, bound)
        if self.lora_B is not None:
            self.lora_B.zero_()

    def forward(self, x: torch.Tensor, routing: Routing, gates: Optional[torch.Tensor] = None, *, x_rows: str = "token",
                y_rows: str = "scattered") -> torch.Tensor:
        weight = self.weight if isinstance(self.weight, torch.Tensor) else self.weight()
        return moe_lora_linear(
            x, weight.transpose(1, 2), routing, self.lora_A, self.lora_B, scaling=self.scaling, bias=self.bias,
            gates=gates, x_rows=x_rows, y_rows=y_rows
        )

    def extra_repr(self) -> str:
        return (
            f"num_experts={self.num_experts}, in_features={self.in_features}, out_features={self.out_features}, "
            f"rank={self.rank}, scaling={self.scaling:g}, bias={self.bias is not None}"
        )
