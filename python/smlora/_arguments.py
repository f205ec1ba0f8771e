"""Arguments that never reach the library, or not as what they are: what is wrong with them is said here."""

import operator

import torch
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor

from smlora._forward_mode import has_tangent, in_forward_mode

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1


def described(value):
    """For a message: the shape of a tensor, else the value and its type."""
    return list(value.shape) if isinstance(value, torch.Tensor) else f"{value!r:.80} of type {type(value).__name__}"


def check_tensor(name, tensor, dims):
    """`dims`: the names of its dimensions, such as ("rows", "columns")."""
    if not isinstance(tensor, torch.Tensor) or tensor.dim() != len(dims):
        raise ValueError(f"{name}: expected a tensor [{', '.join(dims)}], got {described(tensor)}")
    if tensor.layout is not torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got one of {tensor.layout}")


def _needs_derivative(tensor):
    """Whether a float of this tensor loses a gradient, a tangent or, under vmap, all numbers but one."""
    wanted, forward_mode = torch.is_grad_enabled(), in_forward_mode()
    while True:
        if (wanted and tensor.requires_grad) or (forward_mode and has_tangent(tensor)):
            return True
        if not torch._C._are_functorch_transforms_active() or not is_functorch_wrapped_tensor(tensor):
            return False
        if is_batchedtensor(tensor):
            return True
        # no_grad holds for the innermost transform of torch.func alone.
        tensor, wanted = get_unwrapped(tensor), True


def check_number(name, value):
    """As a float."""
    if type(value) is float:
        return value
    if isinstance(value, torch.Tensor) and _needs_derivative(value):
        raise ValueError(
            f"{name}: expected a number or a tensor that needs no derivative, got a tensor {described(value)} that needs one; "
            "multiply a tensor of the operation by it instead"
        )
    try:
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number, got {described(value)}") from None


def check_whole(name, value, least, most):
    """As a whole number: an int, or what Python takes for an index, such as NumPy's."""
    if not isinstance(value, (int, torch.SymInt)):
        try:
            value = operator.index(value)
        except TypeError:
            raise ValueError(f"{name}: expected a whole number, got {described(value)}") from None
    if not least <= value <= most:
        expected = f"{least} or more" if most in (INT32_MAX, INT64_MAX) and value < least else f"{least} to {most}"
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return value


def check_flag(name, value):
    """As 0 or 1."""
    try:
        if value in (False, True):
            return int(value)
    except (TypeError, ValueError, RuntimeError):  # what has no truth value, such as an array
        pass
    raise ValueError(f"{name}: expected True or False, got {described(value)}")


def check_choice(name, value, known):
    """One of these names."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r:.80}")
    return value


LINEAR_NAMES = {
    "W": "weight",
    "weight_parts": "weight",
    "A": "lora_A",
    "B": "lora_B",
    "problem.R": "rank of lora_A",
    "problem.adapter_dtype": "lora_A",
    "problem.gate_dtype": "gates",
}
"""What moe_lora_linear calls the arguments of the operators, with which their messages begin."""

ARGUMENT_ERRORS = (ValueError, NotImplementedError)


def in_callers_words(error, names=LINEAR_NAMES):
    """The same error of an operator with the name that its argument has for the caller."""
    name, colon, rest = str(error).partition(":")
    if name.startswith("W."):  # of a quantised one
        name = names["W"] + name.removeprefix("W").replace("double_quantization.", "outer_")
    elif name.startswith("problem.weights."):  # its format
        name = names["W"] + name.removeprefix("problem.weights")
    return type(error)(names.get(name, name) + colon + rest.replace("(problem.dtype)", "(the type of the rows)"))
