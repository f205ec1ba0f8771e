"""Models with quantised experts against the same models with the decoded experts, in loss and in every adapter's gradient."""

import copy
import hashlib

import pytest
import torch

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import smlora.transformers as st  # noqa: E402
from models import TARGETS, compare, loss_of, randomise, tokens, with_adapter  # noqa: E402
from quantised_models import KINDS, experts_of, fp8_experts, own, parametrised, plain  # noqa: E402
from reference import assert_close, error  # noqa: E402
from smlora.transformers._weights import PARAMETERS, quantized_weight  # noqa: E402


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def decoded(model, dtype=torch.float32):
    """The same with plain experts; test_transformers.py has those against eager."""
    return st.dequantize_experts(copy.deepcopy(model), dtype)


def adapted(model):
    torch.manual_seed(6)
    return with_adapter(model).train()


def digest(model):
    """Of the bytes of all experts."""
    hashed = hashlib.sha256()
    for module in experts_of(model):
        for name in PARAMETERS:
            for tensor in quantized_weight(module, name).tensors().values():
                hashed.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def test_loss_and_gradients_are_those_of_the_decoded_model(kind, device):
    model = kind().to(device)
    twin = decoded(model)
    assert not any("gate_up_proj_" in name for name, _ in twin.named_parameters() if "bias" not in name)
    before = digest(model)
    compare(adapted(twin), adapted(model), tokens(device))
    assert digest(model) == before
