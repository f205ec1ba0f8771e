"""What the benchmarks time, run once: they need a GPU to mean anything, but not to be right."""

import importlib
import pathlib

import pytest
import torch

BENCHMARKS = str(pathlib.Path(__file__).resolve().parents[3] / "benchmarks")


@pytest.fixture
def module_of(monkeypatch):
    """A module of the benchmarks by its name. `benchmark` would be pytest-benchmark's fixture where that is installed."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.mark.parametrize("name", ["peers", "growth", "mlp", "quantised_peers", "quantised_step", "quantised_memory"])
def test_without_a_gpu_one_line_says_so(module_of, monkeypatch, name):
    for package in ("transformers", "peft"):
        pytest.importorskip(package, reason=f"needs {package}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", [name])
    with pytest.raises(SystemExit, match=f"^{name}.py needs a GPU$"):
        module_of(name).main()


@pytest.mark.parametrize("operation", ["base", "forward", "dx", "lora_grad", "step"])
@pytest.mark.parametrize("name", ["Smlora", "SmloraDropIn"])
def test_smloras_operations_run(module_of, device, name, operation):
    prepare = getattr(getattr(module_of("peer_kernels"), name)(), operation, None)
    if prepare is None:
        pytest.skip("the drop-in is timed by its step alone")
    shape = module_of("shapes").Shape("small", E=4, K=32, N=24, T=6, k=2, R=8)
    prepare(module_of("shapes").Inputs(shape, "uniform", torch.Generator(device=device).manual_seed(0)))()


def test_peers_that_are_unknown_or_not_there_are_named(module_of, monkeypatch):
    kernels = module_of("peer_kernels")
    assert [peer.name for peer in kernels.found("smlora,DeepGEMM") if peer.name != "DeepGEMM"] == ["smlora"]
    with pytest.raises(SystemExit, match=r"^--peer: expected some of smlora,.*,DeepGEMM,.*, got deepgemm,other$"):
        kernels.found("smlora,deepgemm,other")
    monkeypatch.setattr(kernels.DeepGEMM, "available", classmethod(lambda cls: "not here"))
    with pytest.raises(SystemExit, match="^--peer: none of DeepGEMM can be imported$"):
        kernels.found("DeepGEMM")


def test_a_peer_without_a_time_for_what_it_has_has_failed(module_of):
    peer = module_of("peer_kernels").SmloraDropIn()
    step, other = {"operation": "step", "ms": {}}, {"operation": "dx", "ms": {}}
    timed = {"operation": "step", "ms": {peer.name: 1.0}}
    assert module_of("peers").failures([step, other, timed], peer) == [step]
