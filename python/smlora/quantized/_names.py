"""Errors of what makes a weight, in the words of its caller."""

import functools
import re
from typing import Any, Callable, TypeVar

_FIELD = re.compile(r"\bweight\.(\w+)")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def names_arguments(**arguments: str) -> Callable[[_Function], _Function]:
    """Of a function whose `arguments`, by the fields of the weight that it makes of them, errors shall name."""

    def decorate(function):
        @functools.wraps(function)
        def named(*given, **keywords):
            try:
                return function(*given, **keywords)
            except ValueError as error:
                raise ValueError(_FIELD.sub(lambda found: arguments.get(found[1], found[0]), str(error))) from None

        return named

    return decorate
