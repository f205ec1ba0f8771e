"""torch.no_grad for public functions: type checkers that do not find torch take a function under torch's own for Any."""

from typing import Callable, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., object])


def without_gradients(function: _Function) -> _Function:
    return torch.no_grad()(function)
