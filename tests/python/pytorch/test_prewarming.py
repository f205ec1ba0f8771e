"""A training step after smlora.prewarm(model) compiles nothing: on an emulated GPU, in a process of its own, for every kind of job."""

import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("peft", reason="needs peft")

from emulated_gpu import environment  # noqa: E402
from jobs import JOBS  # noqa: E402

FOLDER = pathlib.Path(__file__).parent


def run(cache, *arguments, **variables):
    """The output of a script of this folder."""
    process = subprocess.run([sys.executable, *arguments], env=environment(cache, **variables), cwd=FOLDER, capture_output=True,
                             text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """(the reports of prewarming, the counters after the steps)"""
    cache = tmp_path_factory.mktemp("cache") / "kernels"
    prewarmed = json.loads(run(cache, "jobs.py", "prewarm").splitlines()[-1])
    made = json.loads(run(cache, "emulated_gpu.py", "jobs.py", "step", SMLORA_JIT="off").splitlines()[-1])
    return prewarmed, made


@pytest.mark.parametrize("name", JOBS)
def test_a_step_after_prewarming_compiles_nothing(name, steps):
    prewarmed, made = steps
    assert prewarmed[name].get("kernels", 0) > 0, prewarmed[name]
    assert "error" not in made[name], made[name]
    assert made[name]["compiles"] == 0 and made[name]["disk_hits"] > 0
