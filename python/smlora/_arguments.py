"""Arguments that never reach the library, or not as what they are: what is wrong with them is said here."""

import torch


def described(value):
    """For a message: the shape of a tensor, else the value and its type."""
    return list(value.shape) if isinstance(value, torch.Tensor) else f"{value!r:.80} of type {type(value).__name__}"


def check_tensor(name, tensor, dims):
    """`dims`: the names of its dimensions, such as ("rows", "columns")."""
    if not isinstance(tensor, torch.Tensor) or tensor.dim() != len(dims):
        raise ValueError(f"{name}: expected a tensor [{', '.join(dims)}], got {described(tensor)}")


def check_number(name, value):
    """As a float."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a number, got {described(value)}") from None


def check_range(name, value, least, most):
    if not least <= value <= most:
        raise ValueError(f"{name}: expected {least} to {most}, got {value}")


LINEAR_NAMES = {
    "W": "weight",
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
    return type(error)(names.get(name, name) + colon + rest.replace("(problem.dtype)", "(the type of the rows)"))
