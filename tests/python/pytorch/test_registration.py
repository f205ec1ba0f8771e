"""What registering needs of Transformers, and what is said of models whose experts offer no choice of implementation."""

import warnings

import pytest

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.transformers  # noqa: E402
from models import TARGETS, build, loss_of, randomise, tokens, with_adapter  # noqa: E402
from smlora.transformers import _version, _warnings  # noqa: E402


@pytest.fixture
def said(monkeypatch):
    """smlora's warnings of a function."""
    monkeypatch.setattr(_warnings, "warned", set())

    def of(function):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
        return [str(warning.message) for warning in caught if "smlora" in str(warning.message)]

    return of


@pytest.mark.parametrize("implementation, expected", [
    ("eager", []),
    ("smlora", ["smlora: Llama4TextExperts offers no experts_implementation; its own code computes it, and PEFT adds adapters "
                "to the weights in memory"]),
])
def test_experts_without_a_choice_are_said_once(said, implementation, expected):
    config = transformers.Llama4TextConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
        intermediate_size_mlp=48, num_local_experts=4, num_experts_per_tok=1, head_dim=8, moe_layers=[0, 1],
        attention_chunk_size=16, pad_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation=implementation)
    targets = ["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"]

    def train():
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=[], target_parameters=targets))
        randomise(adapted)
        loss_of(adapted, tokens()).backward()

    assert said(train) == expected


def test_an_adapter_on_a_router_is_no_adapter_on_experts(said):
    model = build("qwen3_moe", "smlora")
    assert said(lambda: with_adapter(model, target_parameters=[*TARGETS, "mlp.gate.weight"])) == []
    assert any("mlp.gate.lora_A" in name for name, _ in model.named_parameters())


def test_an_earlier_transformers_is_refused(monkeypatch):
    # Transformers replaces its module while it is imported.
    monkeypatch.setattr(_version.transformers, "__version__", "5.6.2")
    with pytest.raises(ImportError, match=r"transformers: expected 5.7 or later, got 5.6.2"):
        smlora.transformers.register()
