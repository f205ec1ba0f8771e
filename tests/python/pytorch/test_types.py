"""The package's type hints, which py.typed promises to those who check theirs."""

import inspect
import pathlib
import typing

import pytest
import smlora

PACKAGE = pathlib.Path(smlora.__file__).parent
NAMES = ["smlora", "smlora.adapters", "smlora.quantized", "smlora.transformers"]


def _functions(module):
    """(name, function) of every public one, and of the public methods and __init__ of every public class."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for key, member in vars(value).items():
                function = member.fget if isinstance(member, property) else inspect.unwrap(getattr(value, key))
                if inspect.isfunction(function) and (key == "__init__" or not key.startswith("_")):
                    yield f"{name}.{key}", function


def test_the_package_says_that_it_has_hints():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_hints(name):
    untyped, seen = [], 0
    for function_name, function in _functions(pytest.importorskip(name)):
        hints = typing.get_type_hints(function)
        parameters = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
        untyped += [f"{function_name}: {what}" for what in (*parameters, "return") if what not in hints]
        seen += 1
    assert seen > 0 and untyped == []


@pytest.mark.parametrize("name", NAMES)
def test_no_decorator_of_torch_hides_hints(name):
    """Type checkers take a public function for Any under a decorator that they do not find."""
    sources = {key: inspect.getsource(function) for key, function in _functions(pytest.importorskip(name))}
    assert sources and [key for key, source in sources.items() if source.lstrip().startswith("@torch.")] == []
