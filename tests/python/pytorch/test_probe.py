"""How an experts implementation finds out the activation of a module, whatever the caller is in the middle of."""

import warnings

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.transformers  # noqa: E402
from models import build, loss_of, randomise, tokens  # noqa: E402
from reference import assert_close  # noqa: E402
from smlora.transformers import _experts, _version, _warnings  # noqa: E402
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


def test_experts_without_a_choice_are_said_once(monkeypatch):
    monkeypatch.setattr(_warnings, "warned", set())
    config = transformers.Llama4TextConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
        intermediate_size_mlp=48, num_local_experts=4, num_experts_per_tok=1, head_dim=8, moe_layers=[0, 1],
        attention_chunk_size=16, pad_token_id=0)
    targets = ["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"]
    seen = {}
    for implementation in ("eager", "smlora"):
        model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation=implementation)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=[], target_parameters=targets))
            randomise(model)
            loss_of(model, tokens()).backward()
        seen[implementation] = [str(warning.message) for warning in caught if "smlora" in str(warning.message)]
    assert seen["eager"] == []
    assert seen["smlora"] == [
        "smlora: Llama4TextExperts offers no experts_implementation; its own code computes it, and PEFT adds adapters to the "
        "weights in memory"
    ]


def test_an_earlier_transformers_is_refused(monkeypatch):
    # Transformers replaces its module while it is imported.
    monkeypatch.setattr(_version.transformers, "__version__", "5.6.2")
    with pytest.raises(ImportError, match=r"transformers: expected 5.7 or later, got 5.6.2"):
        smlora.transformers.register()
