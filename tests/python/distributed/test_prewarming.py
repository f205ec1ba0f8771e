"""A training step of a rank compiles nothing after smlora.prewarm(model), or after smlora-tune prewarm --ep, on an emulated
GPU."""

import os
import pathlib
import subprocess

import pytest

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("peft", reason="needs peft")
pytest.importorskip("transformers.distributed.expert_parallel", reason="needs Transformers 5.23")

from emulated_gpu import environment  # noqa: E402
from launch import torchrun  # noqa: E402
from models import build, with_adapter  # noqa: E402

FOLDER = pathlib.Path(__file__).parent
EMULATED = FOLDER.parent / "pytorch" / "emulated_gpu.py"
JOB = FOLDER / "prewarmed_job.py"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a model and its adapter."""
    folder = tmp_path_factory.mktemp("prewarmed")
    build("qwen3_moe", "eager", num_experts=12).save_pretrained(folder / "model")
    with_adapter(build("qwen3_moe", "eager", num_experts=12)).save_pretrained(folder / "adapter")
    return folder


def step(row, folder, cache):
    torchrun(str(EMULATED), 2, str(JOB), "step", row, str(folder), environment=environment(cache, SMLORA_JIT="off"))


def in_the_quick_part(request, row):
    """Each takes a minute of two cores."""
    if row != "ep" and not request.config.getoption("--whole"):
        pytest.skip("part of the whole: --whole")


@pytest.mark.parametrize("row", ["ep", "ep_tp", "ep_all_reduce", "tp", "fsdp"])
def test_a_step_of_a_rank_after_prewarming_its_model_compiles_nothing(row, checkpoint, tmp_path, request):
    in_the_quick_part(request, row)
    torchrun(str(JOB), 2, "prewarm", row, str(checkpoint), environment=environment(tmp_path / "cache"))
    step(row, checkpoint, tmp_path / "cache")


@pytest.mark.parametrize("row, options", [("ep", []), ("ep_all_reduce", ["--ep-tokens", "shared"])])
def test_a_step_of_a_rank_after_the_tool_compiles_nothing(row, options, checkpoint, tmp_path, request):
    in_the_quick_part(request, row)
    tool = os.environ.get("SMLORA_TUNE")
    if tool is None:
        pytest.skip("needs SMLORA_TUNE, the path of smlora-tune")
    command = [tool, "prewarm", "--config", checkpoint / "model" / "config.json", "--dtype", "bf16", "--rank", "4",
               "--tokens", "38", "--ep", "2", *options]
    subprocess.run(command, env=environment(tmp_path / "cache"), check=True)
    step(row, checkpoint, tmp_path / "cache")
