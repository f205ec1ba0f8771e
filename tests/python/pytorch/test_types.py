"""The package's type hints, as a project sees them that checks its own."""

import inspect
import os
import pathlib
import subprocess
import sys
import typing

import pytest
import smlora

PACKAGE = pathlib.Path(smlora.__file__).parent


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


@pytest.mark.parametrize("name", ["smlora", "smlora.adapters", "smlora.quantized", "smlora.transformers"])
def test_every_public_name_has_hints(name):
    untyped, seen = [], 0
    for function_name, function in _functions(pytest.importorskip(name)):
        hints = typing.get_type_hints(function)
        parameters = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
        untyped += [f"{function_name}: {what}" for what in (*parameters, "return") if what not in hints]
        seen += 1
    assert seen > 0 and untyped == []


def test_a_consumer_passes_mypy_strict(tmp_path):
    pytest.importorskip("mypy", reason="needs mypy")
    assert (PACKAGE / "py.typed").is_file()
    consumer = pathlib.Path(__file__).parent / "typed_consumer.py"
    # Faults inside smlora are its own, as those of any installed package.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", tmp_path, consumer],
        capture_output=True, text=True, env=dict(os.environ, MYPYPATH=str(PACKAGE.parent)), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
