"""Every row of the matrix of docs/distributed.md, with torchrun and gloo, equal to one process in loss, every gradient of the
adapters, and what save_pretrained writes after a step."""

import functools
import importlib.util
import pathlib

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("peft", reason="needs peft")
pytest.importorskip("transformers.distributed.expert_parallel", reason="needs Transformers 5.23")

from launch import torchrun  # noqa: E402
from models import build, loss_of, with_adapter  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

RATE = 0.5

# (row, model, ranks)
QUICK = [
    ("ddp", "qwen3_moe", 2),
    ("fsdp2_layers", "qwen3_moe", 2),
    ("fsdp2_experts", "qwen3_moe", 2),
    ("fsdp2_adapters", "qwen3_moe", 2),
    ("fsdp1", "qwen3_moe", 2),
    ("ep", "qwen3_moe", 2),
    ("ep_tp", "qwen3_moe", 2),
    ("ep", "qwen3_moe_idle", 2),
    ("tp", "qwen3_moe", 2),
    ("deep_ep", "qwen3_moe", 2),
]
REST = [
    ("ep_all_reduce", "qwen3_moe", 2),
    ("transformers_fsdp", "qwen3_moe", 2),
    ("ep", "gpt_oss", 2),
    ("ep_checkpointed", "qwen3_moe", 2),
    ("ep_of_all_parameters", "qwen3_moe", 2),
    ("zero3", "qwen3_moe", 2),
    ("ep_tp_all_to_all", "qwen3_moe", 2),
    ("ep_all_reduce", "gpt_oss", 2),
    ("tp", "mixtral", 2),
    ("ddp", "qwen3_moe", 4),
    ("fsdp2_layers", "gpt_oss", 4),
    ("fsdp2_experts", "qwen3_moe", 4),
    ("fsdp2_adapters", "qwen3_moe", 4),
    ("hsdp_adapters", "qwen3_moe", 4),
    ("fsdp1", "qwen3_moe", 4),
    ("zero3", "qwen3_moe", 4),
    ("deep_ep", "qwen3_moe", 4),
    ("ep_of_4", "qwen3_moe_idle", 4),
    ("ep_x_fsdp", "qwen3_moe", 4),
    ("ep_of_4", "mixtral", 4),
    ("ep_x_tp_x_fsdp", "qwen3_moe", 4),
    ("ep_of_4_x_tp", "qwen3_moe", 4),
    ("tp_x_fsdp", "qwen3_moe", 4),
]
ROW_TEST = "test_a_row_equals_one_process"
SIZES = {"qwen3_moe": dict(num_experts=12), "gpt_oss": dict(num_local_experts=12), "mixtral": dict(num_local_experts=12)}


def _model(name):
    """`name`: of models.CONFIGS, or qwen3_moe_idle, in whose first layer every token chooses the same two experts."""
    base = name.removesuffix("_idle")
    model = build(base, "eager", **SIZES[base])
    if name != base:
        with torch.no_grad():
            model.model.layers[0].mlp.gate.weight.zero_()
    return model


@pytest.fixture(scope="session")
def one_process(tmp_path_factory):
    """one_process(name, adapted): the folder with a checkpoint, an adapter, and the step that eager experts and PEFT make of
    them; without `adapted`, a step of all parameters."""

    @functools.cache
    def folder_of(name, adapted):
        folder = tmp_path_factory.mktemp(name)
        model = _model(name).train()
        model.save_pretrained(folder / "model")
        if adapted:
            with_adapter(model).save_pretrained(folder / "adapter")
            model = PeftModel.from_pretrained(_model(name), folder / "adapter", is_trainable=True).train()
        ids = torch.randint(3, 97, (4, 19))
        loss = loss_of(model, ids)
        loss.backward()
        gradients = {key.replace(".default.", "."): p.grad for key, p in model.named_parameters() if p.requires_grad}
        step = dict(ids=ids, loss=loss.detach(), gradients=gradients, idle=name.endswith("_idle"), rate=RATE)
        if adapted:
            adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
            assert adapter.keys() == gradients.keys()
            step["trained"] = {key: adapter[key] - RATE * gradient for key, gradient in gradients.items()}
        torch.save(step, folder / "step.pt")
        return folder

    return folder_of


def _reason_to_skip(row, name, ranks, config):
    if (row, name, ranks) in REST and not config.getoption("--whole"):
        return "part of the whole: --whole"
    if row == "zero3" and importlib.util.find_spec("deepspeed") is None:
        return "needs deepspeed"
    return None


@pytest.fixture(scope="session")
def outputs_of(one_process, request):
    """outputs_of(ranks): what each rank printed in each of the rows that this session runs on so many: {(row, name): texts}"""

    @functools.cache
    def run(ranks):
        items = [item for item in request.session.items if getattr(item, "originalname", None) == ROW_TEST]
        rows = [item.callspec.params["case"] for item in items]
        folders = {
            (row, name): one_process(name, row != "ep_of_all_parameters")
            for row, name, of in rows if of == ranks and _reason_to_skip(row, name, of, request.config) is None
        }
        arguments = [argument for (row, _), folder in folders.items() for argument in (row, folder)]
        torchrun(pathlib.Path(__file__).with_name("job.py"), ranks, *arguments, seconds=200 * len(folders))
        return {
            (row, name): [(folder / f"{row}_of_{ranks}_{rank}.txt").read_text() for rank in range(ranks)]
            for (row, name), folder in folders.items()
        }

    return run


@pytest.mark.parametrize("case", [pytest.param(case, id="-".join(map(str, case))) for case in QUICK + REST])
def test_a_row_equals_one_process(case, outputs_of, request):
    row, name, ranks = case
    if reason := _reason_to_skip(*case, request.config):
        pytest.skip(reason)
    for rank, text in enumerate(outputs_of(ranks)[row, name]):
        assert text.endswith("ok\n"), f"rank {rank}: {text}"


def test_what_cannot_be_done_is_refused(one_process):
    output = torchrun(pathlib.Path(__file__).with_name("refusals.py"), 2, one_process("qwen3_moe", True))
    assert output.count(": ok") == 2
