"""A training step after smlora.prewarm(model), or after smlora-tune prewarm, compiles nothing: on an emulated GPU, in a process
of its own, for every kind of job."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("peft", reason="needs peft")

from emulated_gpu import environment  # noqa: E402
from jobs import JOBS  # noqa: E402
from models import CONFIGS, config_of  # noqa: E402

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


def check(counters):
    assert "error" not in counters, counters
    assert counters["compiles"] == 0 and counters["disk_hits"] > 0


@pytest.mark.parametrize("name", JOBS)
def test_a_step_after_prewarming_compiles_nothing(name, steps):
    prewarmed, made = steps
    assert prewarmed[name].get("kernels", 0) > 0, prewarmed[name]
    check(made[name])


@pytest.fixture(scope="module")
def steps_after_the_tool(tmp_path_factory):
    """The counters after the steps of all families, whose config.json the tool was given."""
    tool = os.environ.get("SMLORA_TUNE")
    if tool is None:
        pytest.skip("needs SMLORA_TUNE, the path of smlora-tune")
    folder = tmp_path_factory.mktemp("tool")
    command = [tool, "prewarm", "--dtype", "bf16", "--rank", "4", "--tokens", "38"]
    for name in CONFIGS:
        config_of(name, "smlora").save_pretrained(folder / name)
        command += ["--config", folder / name / "config.json"]
    subprocess.run(command, env=environment(folder / "kernels"), check=True, capture_output=True)
    output = run(folder / "kernels", "emulated_gpu.py", "jobs.py", "step", *CONFIGS, SMLORA_JIT="off")
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_after_the_tool_compiles_nothing(name, steps_after_the_tool):
    check(steps_after_the_tool[name])
