"""Some experts of a quantised weight."""

import torch

from smlora.quantized import QuantizedWeight
from smlora.quantized._bitsandbytes import decoded_scales


def _are_all(experts, E):
    return experts.numel() == E and torch.equal(experts, torch.arange(E, device=experts.device, dtype=experts.dtype))


def _fields_of_blocks(weight, experts):
    """Of nf4 and fp4, where no block has values of two experts. Blocks of blocks may have, so that scales become fp32."""
    scales = weight.scales
    if weight.outer_scales is not None:
        scales = decoded_scales(scales, weight.outer_table, weight.outer_scales, weight.outer_block, weight.outer_offset)
    return {
        "codes": weight.codes.reshape(weight.E, -1)[experts],
        "scales": scales.reshape(weight.E, -1)[experts].reshape(-1),
        "table": weight.table,
    }


def has_blocks_of_two_experts(weight):
    return weight.table is not None and weight.rows * weight.columns % weight.block != 0


def chosen_experts(weight, experts):
    """The QuantizedWeight of the experts whose indices are given: a copy, unless they are all."""
    if _are_all(experts, weight.E):
        return weight
    if has_blocks_of_two_experts(weight):
        raise ValueError(
            f"weight: expected experts of a multiple of {weight.block} values, the block, got {list(weight.shape)}"
        )
    if weight.table is not None:
        fields, outer_block = _fields_of_blocks(weight, experts), 0
    else:
        fields, outer_block = {name: tensor[experts] for name, tensor in weight.tensors().items()}, weight.outer_block
    return QuantizedWeight.from_tensors(weight.format._replace(E=experts.numel(), outer_block=outer_block), fields)


def decoded_experts(weight, experts, dtype):
    """Their values. Others are decoded only where a block has values of two experts."""
    if has_blocks_of_two_experts(weight):
        return weight.dequantize(dtype)[experts]
    return chosen_experts(weight, experts).dequantize(dtype)
