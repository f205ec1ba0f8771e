"""Forward-mode differentiation: whether it is on, and what a tensor carries. torch.autograd.forward_ad does not know the dual
level that a graph of torch.compile enters for torch.func.jvp."""

import torch
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad


def in_forward_mode():
    if forward_ad._current_level >= 0:
        return True
    if not torch._C._are_functorch_transforms_active():
        return False
    return any(transform.key() == TransformType.Jvp for transform in get_interpreter_stack())


def unpack_dual(tensor):
    """(the tensor without its tangent, its tangent or None), at the only dual level that torch has."""
    return torch._VF._unpack_dual(tensor, level=0)


def has_tangent(argument):
    return isinstance(argument, torch.Tensor) and unpack_dual(argument)[1] is not None
