"""The package's type hints, as a project sees them that checks its own."""

import os
import pathlib
import subprocess
import sys

import pytest
import smlora


def test_a_consumer_passes_mypy_strict(tmp_path):
    pytest.importorskip("mypy", reason="needs mypy")
    package = pathlib.Path(smlora.__file__).parent
    assert (package / "py.typed").is_file()
    consumer = pathlib.Path(__file__).parent / "typed_consumer.py"
    # Faults inside smlora are its own, as those of any installed package.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", tmp_path, consumer],
        capture_output=True, text=True, env=dict(os.environ, MYPYPATH=str(package.parent)), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
