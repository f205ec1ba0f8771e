"""Quantisation of experts while a plain checkpoint is loaded."""

import weakref

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.transformers as st  # noqa: E402
from models import tokens  # noqa: E402
from quantised_models import experts_of, plain  # noqa: E402
from smlora.transformers import _warnings  # noqa: E402
from smlora.transformers._weights import PARAMETERS, quantized_weight  # noqa: E402
from test_quantised_files import load, nothing_chosen  # noqa: E402, F401
from test_quantised_models import adapted, compare, decoded  # noqa: E402
from transformers.trainer_utils import validate_quantization_for_training  # noqa: E402

CHOICES = [
    *((encoding, {}) for encoding in ("nf4", "fp4", "mxfp4", "nvfp4", "fp8", "mxfp8", "int8", "int4")),
    ("nf4", dict(block=128, double=True)), ("fp4", dict(block=32)), ("fp8", dict(block=24)), ("int4", dict(block=16)),
]
"""What register and quantize_experts take."""


@pytest.mark.parametrize("encoding, options", CHOICES)
def test_quantising_while_loading_gives_what_it_gives_afterwards(encoding, options, tmp_path):
    plain().save_pretrained(tmp_path)
    st.register(quantize_experts=encoding, **options)
    model, expected = load(tmp_path), st.quantize_experts(plain(), encoding, **options)
    weights = [quantized_weight(module, name) for module in experts_of(model) for name in PARAMETERS]
    assert {weight.encoding for weight in weights} == {encoding} and len(weights) == 4
    assert all(weight.block == options.get("block", weight.block) for weight in weights)
    assert all((weight.outer_scales is not None) == options.get("double", False) for weight in weights)
    states = model.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert getattr(model.config, "quantization_config", None) is None
    validate_quantization_for_training(adapted(model))


@pytest.mark.parametrize("model, dtype", [("qwen3_moe", torch.float32), ("qwen3_moe", torch.bfloat16),
                                          ("gpt_oss", torch.float32)])
@pytest.mark.parametrize("encoding, options", CHOICES)
def test_transformers_is_told_how_large_experts_will_be(encoding, options, model, dtype):
    """By which it decides where layers go with device_map="auto"."""
    model = plain(model, dtype=dtype)
    st.register(quantize_experts=encoding, **options)
    quantizer, *_ = transformers.modeling_utils.get_hf_quantizer(model.config, None, None, {}, {})
    module = experts_of(model)[0]
    path = next(path for path, found in model.named_modules() if found is module)
    told = {name: quantizer.param_element_size(model, f"{path}.{name}", module._parameters[name]) for name in PARAMETERS}
    sizes = {name: module._parameters[name].numel() for name in PARAMETERS}
    st.quantize_experts(model, encoding, **options)
    weights = {name: quantized_weight(module, name) for name in PARAMETERS}
    assert {name: round(told[name] * sizes[name]) for name in PARAMETERS} == {
        name: weight.nbytes for name, weight in weights.items()
    }


def test_one_tensor_of_experts_is_plain_at_a_time(tmp_path, monkeypatch):
    """Of all that Transformers reads of experts, no more is in memory than the tensor that is quantised and what it was made
    from."""
    from transformers import core_model_loading

    from smlora.transformers import _conversion

    plain().save_pretrained(tmp_path)
    read, stacked = [], []
    materialise, quantize = core_model_loading._materialize_copy, _conversion.quantize

    def bytes_of(references):
        return sum(tensor.nbytes for tensor in (reference() for reference in references) if tensor is not None)

    def recorded(*arguments, **named):
        tensor = materialise(*arguments, **named)
        if tensor.shape[-1] == 96 or tensor.shape == (96, 64):  # of experts alone
            read.append(weakref.ref(tensor))
        return tensor

    def quantised(values, *arguments, **named):
        assert bytes_of(stacked) == 0 and bytes_of(read) <= values.nbytes
        stacked.append(weakref.ref(values))
        return quantize(values, *arguments, **named)

    monkeypatch.setattr(core_model_loading, "_materialize_copy", recorded)
    monkeypatch.setattr(_conversion, "quantize", quantised)
    st.register(quantize_experts="nf4")
    load(tmp_path)
    assert len(stacked) == 4 and len(read) == 36


def test_other_models_are_loaded_as_before(tmp_path):
    plain().save_pretrained(tmp_path)
    st.register(quantize_experts="nf4")
    eager = load(tmp_path, experts_implementation="eager")
    st.register()
    for model in (eager, load(tmp_path)):
        assert all(quantized_weight(module, name) is None for module in experts_of(model) for name in PARAMETERS)
        assert not getattr(model, "is_quantized", False)


def test_a_model_without_experts_counts_as_plain(tmp_path):
    config = transformers.Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                                      num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    st.register(quantize_experts="nf4")
    model = load(tmp_path)
    assert not model.is_quantized and not hasattr(model, "hf_quantizer")
    validate_quantization_for_training(model)


# ---- beside bitsandbytes' linear layers ------------------------------------------------------------------------------


def load_in_4bit(folder, **options):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return load(folder, quantization_config=config, **options)


def test_load_in_4bit_quantises_experts_too(tmp_path):
    plain().save_pretrained(tmp_path)
    st.register(quantize_experts="nf4")
    model = load_in_4bit(tmp_path)
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    assert {quantized_weight(module, name).encoding for module in experts_of(model) for name in PARAMETERS} == {"nf4"}
    twin = decoded(model)
    model = adapted(model)
    validate_quantization_for_training(model)
    compare(adapted(twin), model, tokens().to(model.device))


def test_load_in_4bit_says_that_experts_were_left(tmp_path):
    plain().save_pretrained(tmp_path)
    _warnings.warned.clear()
    with pytest.warns(UserWarning, match=r"smlora: the experts of Qwen3MoeForCausalLM are in torch.float32, as bitsandbytes "
                                         r"quantises linear layers alone; .*quantize_experts=\"nf4\"") as seen:
        load_in_4bit(tmp_path)
        load_in_4bit(tmp_path)
    assert len([warning for warning in seen if "smlora" in str(warning.message)]) == 1
