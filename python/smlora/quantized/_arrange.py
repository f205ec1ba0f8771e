"""The operator that puts the scales of a weight into the order of products on Hopper."""

import torch

from smlora._operator import library_operator


def _arranged(codes, weight_parts, weight_format):
    _, E, rows, columns, block, *_ = weight_format
    scales = weight_parts[0]
    in_row = 1 if scales.dtype == torch.bfloat16 and block >= 64 else 2  # for 64 values
    return (scales.new_empty((E, -(-rows // 256) * 4, -(-columns // 256) * 4, 64 * in_row)),)


arrange_op = library_operator("arrange_scales", _arranged).without_derivative()
