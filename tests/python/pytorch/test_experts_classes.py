"""Every class of experts that the installed Transformers has: which smlora fuses, as docs/models.md lists them, and those whose
activation is their own against eager."""

import pathlib
import re

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")

import smlora.transformers  # noqa: E402
from experts_classes import experts_on_meta  # noqa: E402
from reference import assert_close  # noqa: E402
from smlora.transformers import _experts  # noqa: E402

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "models.md"


@pytest.fixture(scope="module")
def found():
    """{class: Layer} of each."""
    layers = {}
    for experts, module in experts_on_meta():
        assert module is not None, f"no config makes {experts.__name__}"
        module.config._experts_implementation = "smlora"
        (layers[experts],) = smlora.transformers.status(module)
    return layers


def test_every_class_is_served(found):
    assert len(found) > 30
    assert {layer.runs for layer in found.values()} <= {"fused", "projections"}
    assert sum(layer.runs == "fused" for layer in found.values()) > 0.9 * len(found)


def test_the_page_lists_them(found):
    text = PAGE.read_text()
    version = re.search(r"Transformers (\d+\.\d+)", text).group(1)
    if not transformers.__version__.startswith(version + "."):
        pytest.skip(f"docs/models.md is about Transformers {version}")
    listed = {}
    for runs, why, names in re.findall(r"^\| (\w+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", names), (runs, why))
    assert listed == {experts.__name__: (layer.runs, layer.why) for experts, layer in found.items()}


def _small(config):
    """Of a config of Transformers, what experts need."""
    sizes = dict(num_experts=5, num_local_experts=5, n_routed_experts=5, hidden_size=16, moe_hidden_size=16,
                 moe_intermediate_size=8, intermediate_size=8, moe_latent_size=None)
    for name, size in sizes.items():
        if hasattr(config, name):
            setattr(config, name, size)
    return config


@pytest.mark.parametrize("family, experts, config", [
    ("deepseek_v4", "DeepseekV4Experts", "DeepseekV4Config"),
    ("inkling2", "Inkling2Experts", "Inkling2TextConfig"),
    ("muse_spark", "MuseSparkExperts", "MuseSparkTextConfig"),
    ("nemotron_h", "NemotronHExperts", "NemotronHConfig"),
])
def test_experts_whose_activation_is_their_own(family, experts, config, device):
    module = pytest.importorskip(f"transformers.models.{family}.modeling_{family}", reason="needs a newer Transformers")
    smlora.transformers.register()
    module = getattr(module, experts)(_small(getattr(transformers, config)())).to(device)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    x, index = torch.randn(2, 33, 16, device=device), torch.rand(33, 5, device=device).argsort(1)[:, :2]
    gates, direction = torch.rand(2, 33, 2, device=device), torch.randn(33, 16, device=device)
    results = {}
    for implementation in ("eager", "smlora"):
        module.config._experts_implementation = implementation
        inputs = [tensor[0].clone().requires_grad_() for tensor in (x, gates)]
        out = module(inputs[0], index, inputs[1])
        gradients = torch.autograd.grad((out * direction).sum(), [*inputs, *module.parameters()])
        results[implementation] = out, *gradients
    assert module._smlora_activation is _experts.BY_THE_MODEL
    for got, expected in zip(results["smlora"], results["eager"], strict=True):
        assert_close(got, expected, torch.float32, factor=2)
