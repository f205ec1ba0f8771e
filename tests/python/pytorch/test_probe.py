"""How an experts implementation finds out the activation of a module, whatever the caller is in the middle of."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("peft", reason="needs peft")

import smlora  # noqa: E402
from models import build  # noqa: E402
from reference import assert_close  # noqa: E402
from smlora.transformers import _experts  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402


def _experts_of(model):
    return model.model.layers[-1].mlp.experts


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
def test_a_first_call_on_another_default_device(name):
    eager, fused = (_experts_of(build(name, implementation)) for implementation in ("eager", "smlora"))
    x, index, gates = torch.randn(5, 32), torch.randint(0, 6, (5, 2)), torch.rand(5, 2)
    expected = eager(x, index, gates)
    torch.set_default_device("meta")
    try:
        got = fused(x, index, gates)
    finally:
        torch.set_default_device(None)
    assert isinstance(fused._smlora_activation, smlora.Activation)
    assert_close(got, expected, torch.float32)


def test_a_first_call_with_fake_tensors():
    experts = _experts_of(build("gpt_oss", "smlora"))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        inputs = torch.randn(5, 32), torch.randint(0, 6, (5, 2)), torch.rand(5, 2)
        out = experts(*map(mode.from_tensor, inputs))
    assert out.shape == (5, 32) and experts._smlora_activation.kind == "swiglu_clamped"


def test_a_first_call_under_autocast():
    experts = _experts_of(build("gpt_oss", "smlora"))
    with torch.autocast("cpu", torch.bfloat16):
        experts(torch.randn(5, 32), torch.randint(0, 6, (5, 2)), torch.rand(5, 2))
    assert experts._smlora_activation.kind == "swiglu_clamped"


def test_alpha_and_limit_may_have_any_name():
    module = torch.nn.Module()
    module.steepness, module.cut, module.num_experts, module.training_flag = 1.3, 5, 128, True

    def apply_gate(halves):
        gate, up = halves.chunk(2, -1)
        gate, up = gate.clamp(max=module.cut), up.clamp(-module.cut, module.cut)
        return (up + 1) * gate * torch.sigmoid(gate * module.steepness)

    module._apply_gate = apply_gate
    assert _experts._activation_of(module) == smlora.Activation("swiglu_clamped", False, 1.3, 5.0)
