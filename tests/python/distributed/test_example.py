"""examples/distributed.py, with Transformers' Trainer: what it trains on several ranks is what one rank trains."""

import pathlib
import re

import pytest

pytest.importorskip("peft", reason="needs peft")
pytest.importorskip("transformers.distributed.expert_parallel", reason="needs Transformers 5.23")

from launch import torchrun  # noqa: E402
from models import build  # noqa: E402
from reference import error  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

EXAMPLE = pathlib.Path(__file__).parents[3] / "examples" / "distributed.py"


def losses_and_adapter(ranks, model, folder, *sizes):
    output = torchrun(EXAMPLE, ranks, "--model", model, "--save", folder, "--steps", "4", *sizes)
    losses = [float(loss) for loss in re.findall(r"'loss': '?([0-9.]+)", output)]
    assert len(losses) == 4, output
    return losses, load_file(folder / "adapter_model.safetensors")


def test_the_example_trains_the_same_on_one_and_two_ranks(tmp_path):
    build("qwen3_moe", "eager", num_experts=12, vocab_size=256, max_position_embeddings=64).save_pretrained(tmp_path / "model")
    one, adapter = losses_and_adapter(1, tmp_path / "model", tmp_path / "one")
    two, spread = losses_and_adapter(2, tmp_path / "model", tmp_path / "two", "--fsdp", "2", "--ep", "2")
    assert two == pytest.approx(one, rel=1e-3)
    assert one[-1] < one[0]
    assert spread.keys() == adapter.keys()
    for name, tensor in adapter.items():
        # AdamW divides by the size of a gradient, however small, and of its rounding.
        assert error(spread[name], tensor) < 0.01, name
