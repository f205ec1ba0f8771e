"""The operator that decodes a quantised weight."""

from smlora._operator import library_operator


def _values(codes, weight_parts, weight_format, dtype):
    _, E, rows, columns, *_ = weight_format
    return (codes.new_empty((E, rows, columns), dtype=dtype),)


dequantize_op = library_operator("dequantize", _values).without_derivative()
