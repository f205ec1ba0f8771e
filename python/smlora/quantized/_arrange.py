"""The operator that puts the scales of MXFP4 into the order of products on Hopper."""

from smlora._operator import library_operator


def _arranged(codes, weight_parts, weight_format):
    _, E, rows, columns, *_ = weight_format
    return (weight_parts[0].new_empty((E, -(-rows // 256) * 4, -(-columns // 256) * 4, 128)),)


arrange_op = library_operator("arrange_scales", _arranged).without_derivative()
