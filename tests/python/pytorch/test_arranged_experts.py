"""Models whose quantised experts have their scales arranged."""

import copy

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.transformers as st  # noqa: E402
from models import compare, loss_of, tokens, with_adapter  # noqa: E402
from quantised_models import KINDS, experts_of, own  # noqa: E402
from smlora.transformers import _warnings  # noqa: E402
from smlora.transformers._weights import PARAMETERS, quantized_weight  # noqa: E402


def weights_of(model):
    return [quantized_weight(module, name) for module in experts_of(model) for name in PARAMETERS]


def adapted(model):
    torch.manual_seed(6)
    return with_adapter(model).train()


@pytest.mark.parametrize("kind", ["gpt-oss blocks", "FP8Experts, fp4", "FP8Experts, mxfp8", "smlora's mxfp4",
                                  "smlora's mxfp4 [E, in, out]"])
def test_loss_and_gradients_stay(device, kind):
    model = KINDS[kind]().to(device)
    twin = copy.deepcopy(model)
    assert st.arrange_experts(model) is model
    assert all(weight.is_arranged for weight in weights_of(model))
    assert not any(weight.is_arranged for weight in weights_of(twin))
    assert f"{weights_of(model)[0].encoding} arranged" in str(st.status(model))
    for arranged, weight in zip(weights_of(model), weights_of(twin), strict=True):
        assert torch.equal(arranged.dequantize(torch.float32), weight.dequantize(torch.float32))
    compare(adapted(twin), adapted(model), tokens(device))


@pytest.mark.parametrize("kind", ["gpt-oss blocks", "smlora's mxfp4"])
def test_it_lasts_in_other_memory(kind):
    model = st.arrange_experts(KINDS[kind]())
    moved = copy.deepcopy(model)
    assert all(weight.is_arranged for weight in weights_of(moved))
    before = model.state_dict()
    assert {name for name in before if "scales" in name} == {name for name in KINDS[kind]().state_dict() if "scales" in name}
    moved.load_state_dict(before)
    ids = tokens()
    assert torch.equal(loss_of(moved, ids), loss_of(model, ids))
    for module in experts_of(st.dequantize_experts(moved)):
        assert type(module.down_proj) is torch.nn.Parameter


def test_scales_that_are_loaded_later_are_arranged_anew():
    model, other = st.arrange_experts(KINDS["gpt-oss blocks"]()), KINDS["gpt-oss blocks"]()
    weights_of(model)  # made before
    with torch.no_grad():
        for weight in weights_of(other):
            weight.scales.view(torch.uint8).sub_(1)  # half of each value
            weight.codes.bitwise_xor_(0x80)
    model.load_state_dict(other.state_dict())
    for arranged, weight in zip(weights_of(model), weights_of(other), strict=True):
        assert arranged.is_arranged
        assert torch.equal(arranged.dequantize(torch.float32), weight.dequantize(torch.float32))


def test_scales_that_change_alone_are_arranged_anew():
    model, other = st.arrange_experts(KINDS["gpt-oss blocks"]()), KINDS["gpt-oss blocks"]()
    weights_of(model)  # made before
    with torch.no_grad():
        for module, changed in zip(experts_of(model), experts_of(other), strict=True):
            for name in ("gate_up_proj_scales", "down_proj_scales"):
                for each in (module, changed):
                    getattr(each, name).view(torch.uint8).sub_(1)
    for arranged, weight in zip(weights_of(model), weights_of(other), strict=True):
        assert torch.equal(arranged.dequantize(torch.float32), weight.dequantize(torch.float32))


def test_other_encodings_stay_as_they_are():
    model = own("int8")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    st.arrange_experts(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_cannot_be_arranged_is_said():
    model = own("int4")  # of a model in fp32, so its scales are
    _warnings.warned.clear()
    with pytest.warns(UserWarning, match="down_proj of .*Experts is decoded before.*scales: expected bf16, got fp32"):
        st.arrange_experts(model)
    assert not any(weight.is_arranged for weight in weights_of(model))
