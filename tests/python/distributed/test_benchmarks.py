"""benchmarks/distributed.py and benchmarks/shared_cache.py, small and without a GPU: what they train, write and count."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

pytest.importorskip("peft", reason="needs peft")
pytest.importorskip("transformers.distributed.expert_parallel", reason="needs Transformers 5.23")

import smlora  # noqa: E402
from launch import torchrun  # noqa: E402

BENCHMARKS = pathlib.Path(__file__).parents[3] / "benchmarks"
MODES = ["ddp", "fsdp2", "ep", "ep+fsdp2"]
STEPS = 3


@pytest.fixture(scope="module")
def document_of(tmp_path_factory):
    """document_of(ranks): what the benchmark of all modes writes."""
    documents = {}

    def document(ranks):
        if ranks not in documents:
            file = tmp_path_factory.mktemp("benchmark") / "distributed.json"
            # So large a rate moves the loss by more than a hundred times the tolerance.
            torchrun(BENCHMARKS / "distributed.py", ranks, "--device", "cpu", "--dtype", "fp32", "--small", "--check",
                     "--layers", "2", "--tokens", "32", "--warmup", "1", "--steps", str(STEPS - 1), "--learning-rate", "3e-2",
                     "--json", file)
            documents[ranks] = json.loads(file.read_text())
        return documents[ranks]

    return document


def in_the_quick_part(request, ranks):
    """Each number of ranks takes half a minute or more of two cores."""
    if ranks != 2 and not request.config.getoption("--whole"):
        pytest.skip("part of the whole: --whole")


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("experts", ["smlora", "grouped_mm"])
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_trains_as_one_process_does(mode, experts, ranks, document_of, request):
    in_the_quick_part(request, ranks)
    (result,) = [one for one in document_of(ranks)["results"] if (one["mode"], one["experts"]) == (mode, experts)]
    spread = {"ep": ranks, "ep+fsdp2": ranks // 2}.get(mode, 1) > 1
    if experts == "grouped_mm" and spread:
        assert result["ranks_that_failed"] == ranks
        assert "down_proj is spread over ranks" in result["error"]
        return
    assert len(result["losses"]) == STEPS
    assert result["losses"] == pytest.approx(result["losses_of_one_process"], rel=1e-5)
    assert result["greatest_error_of_losses"] < 1e-5
    assert result["losses"][0] - result["losses"][-1] > 1e-3 * result["losses"][0]
    assert 0 < result["seconds"]["min"] <= result["seconds"]["median"]
    assert result["tokens_per_second"] == pytest.approx(ranks * 32 / result["seconds"]["median"])


def test_where_and_how_it_ran_is_written_beside_it(document_of):
    environment = document_of(2)["environment"]
    assert environment["ranks"] == 2 and environment["backend"] == "gloo" and environment["gpu"] is None
    assert environment["torch"] == torch.__version__ and environment["smlora"] == smlora.__version__
    assert "distributed.py --device cpu" in environment["command"]


@pytest.fixture
def benchmark_of_ranks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("distributed")


def test_without_a_gpu_one_line_says_so(benchmark_of_ranks, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["distributed.py"])
    with pytest.raises(SystemExit, match="^distributed.py needs a GPU$"):
        benchmark_of_ranks.main()


@pytest.mark.parametrize("words, message", [
    (["--mode", "ddp,tp"], "--mode: expected some of ddp,fsdp2,ep,ep+fsdp2, got tp"),
    (["--experts", "eager"], "--experts: expected some of smlora,grouped_mm, got eager"),
    (["--steps", "0"], "--steps: expected at least 1, got 0"),
])
def test_arguments_that_make_no_sense_are_named(benchmark_of_ranks, words, message, capsys):
    with pytest.raises(SystemExit):
        benchmark_of_ranks.parse_arguments(words)
    assert message in capsys.readouterr().err


def test_processes_that_share_a_cache_compile_each_kernel_once(tmp_path, request):
    if not request.config.getoption("--whole"):
        pytest.skip("part of the whole: --whole")
    tool = os.environ.get("SMLORA_TUNE")
    if tool is None:
        pytest.skip("needs SMLORA_TUNE, the path of smlora-tune")
    if not smlora.system_info()["nvrtc"]["found"]:
        pytest.skip("needs NVRTC")
    command = [sys.executable, BENCHMARKS / "shared_cache.py", "--small", "--dtype", "fp32", "--json", tmp_path / "counts.json"]
    paths = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    run = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    document = json.loads((tmp_path / "counts.json").read_text())
    assert len(document["claims"]) >= 4 and all(one["holds"] for one in document["claims"]), run.stdout
    assert sum(one["compiled"] for one in document["compile"]) == document["compile"][0]["kernels"]
    assert 0 < sum(one["compiled"] for one in document["after_the_kill"]) < document["compile"][0]["kernels"]
