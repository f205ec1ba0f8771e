"""Weights of e2m1 values, MXFP4 and NVFP4, as axolotl hands them to its kernels; see smlora.scattermoe."""

import dataclasses
import enum
from typing import Optional

import torch

from smlora._arguments import described
from smlora.quantized import from_mxfp4, from_nvfp4, from_torchao
from smlora.scattermoe._experts import chosen_experts

MX_BLOCK_SIZE = 32
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def fp4_codebook(device):
    """fp32 [16]: the value of each e2m1 code."""
    return torch.tensor([*_E2M1, *(-value for value in _E2M1)], dtype=torch.float32, device=device)


class MXLayout(enum.IntEnum):
    """Blocks lie along K."""

    FWD = 0


@dataclasses.dataclass
class MXWeights:
    """packed uint8 [E, N, K / 2], the low nibble first, with scales for each block_size values of a row.

    Scales are powers of two for 32, uint8 or float8_e8m0fnu (MXFP4); or with scale_is_linear float8_e4m3fn for 16, times
    per_tensor_scale: fp32, one for all or one for each expert (NVFP4). Nothing is copied. Raises ValueError that names the
    field."""

    packed: torch.Tensor
    scales: torch.Tensor
    K: int
    N: int
    layout: MXLayout = MXLayout.FWD
    block_size: int = MX_BLOCK_SIZE
    num_experts: Optional[int] = None
    orig_dtype: torch.dtype = torch.bfloat16
    scale_is_linear: bool = False
    per_tensor_scale: Optional[torch.Tensor] = None

    def __post_init__(self):
        if self.layout != MXLayout.FWD:
            raise ValueError(f"layout: expected MXLayout.FWD, got {self.layout!r}")
        block = 16 if self.scale_is_linear else MX_BLOCK_SIZE
        if self.block_size != block:
            raise ValueError(
                f"block_size: expected {block} with scale_is_linear={self.scale_is_linear}, got {self.block_size}"
            )
        if self.scale_is_linear and self.scales.dtype != torch.float8_e4m3fn:
            raise ValueError(
                "scales: expected float8_e4m3fn with scale_is_linear=True, as they are stored, with their factor in "
                f"per_tensor_scale, got {self.scales.dtype}"
            )
        if self.per_tensor_scale is not None and not self.scale_is_linear:
            raise ValueError(
                f"per_tensor_scale: expected None with scale_is_linear=False, got {described(self.per_tensor_scale)}"
            )
        E, N, K = self.quantized.transpose(1, 2).shape
        if (self.N, self.K) != (N, K) or self.num_experts not in (None, E):
            raise ValueError(
                f"num_experts, N, K: expected {E}, {N} and {K}, as packed is {list(self.packed.shape)}, got "
                f"{self.num_experts}, {self.N} and {self.K}"
            )
        self.num_experts = E

    @property
    def device(self):
        return self.packed.device

    @property
    def quantized(self):
        """The QuantizedWeight [E, K, N], which shares the memory."""
        if not self.scale_is_linear:
            return from_mxfp4(self.packed, self.scales).transpose(1, 2)
        factor = 1.0 if self.per_tensor_scale is None else self.per_tensor_scale
        return from_nvfp4(self.packed, self.scales, factor).transpose(1, 2)


def _is_torchao(param, kind):
    return type(getattr(param, "data", param)).__name__ == kind


def is_mxfp4_param(param):
    """Whether it is torchao's MXTensor of e2m1 values."""
    return _is_torchao(param, "MXTensor") and param.elem_dtype == torch.float4_e2m1fn_x2


def is_nvfp4_param(param):
    """Whether it is torchao's NVFP4Tensor."""
    return _is_torchao(param, "NVFP4Tensor")


def _of_torchao(name, param, active_experts):
    weight = from_torchao(param.data)
    if weight.transposed:
        raise ValueError(f"{name}: expected [E, N, K] with blocks along K, got a transposed {type(param.data).__name__}")
    weight = chosen_experts(weight, active_experts)
    return MXWeights(
        weight.codes, weight.scales, K=weight.columns, N=weight.rows, block_size=weight.block, num_experts=weight.E,
        orig_dtype=param.orig_dtype, scale_is_linear=weight.encoding == "nvfp4", per_tensor_scale=weight.global_scales
    )


def selective_mx_weights_fwd(mx_param, active_experts):
    """The MXWeights of these experts of an MXTensor [E, N, K]; in its own memory if they are all."""
    if not is_mxfp4_param(mx_param):
        raise ValueError(f"mx_param: expected torchao's MXTensor of float4_e2m1fn_x2, got {described(mx_param)}")
    return _of_torchao("mx_param", mx_param, active_experts)


def selective_nvfp4_weights_fwd(nv_param, active_experts):
    """The MXWeights of these experts of an NVFP4Tensor [E, N, K]; in its own memory if they are all."""
    if not is_nvfp4_param(nv_param):
        raise ValueError(f"nv_param: expected torchao's NVFP4Tensor, got {described(nv_param)}")
    return _of_torchao("nv_param", nv_param, active_experts)
