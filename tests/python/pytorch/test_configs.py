"""Every config of the installed Transformers whose experts smlora computes, as `smlora-tune models --config` reads it, against
the experts that it makes on the meta device."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

transformers = pytest.importorskip("transformers", reason="needs transformers")

from experts_classes import complete, configs_in, experts_on_meta, families  # noqa: E402
from smlora.transformers import _experts  # noqa: E402
from smlora.transformers._weights import is_gated, parameters_of  # noqa: E402

TUNE = os.environ.get("SMLORA_TUNE", "")
TOP_K = re.compile(r"config\.(num_experts_per_tok(?:en)?|top_k_experts|moe_top_?k|moe_k)\b")
"""What routers read."""

REFUSED = {
    "MuseSparkExperts": "has a norm after each expert",
    "Ernie4_5_VLMoeMoeExperts": "moe_intermediate_size: expected the same number for all experts, got [1536,512]",
}
"""With the reason."""


def _top_k(experts, config):
    """The number of experts of a token, from the config's attribute that the family's routers read."""
    source = pathlib.Path(sys.modules[experts.__module__].__file__).read_text()
    values = {getattr(config, name) for name in TOP_K.findall(source) if isinstance(getattr(config, name, None), int)}
    assert len(values) == 1, f"{experts.__name__}: {TOP_K.findall(source)}"
    return values.pop()


def _shape(experts, module, config):
    """As the tool prints it."""
    up, down = (getattr(module, name) for name in parameters_of(module))
    E, first, second = up.shape
    inputs, outputs = (first, second) if module.is_transposed else (second, first)
    activation = _experts.between_projections(module)
    fused = activation is not _experts.BY_THE_MODEL
    return dict(
        num_experts=E, top_k=_top_k(experts, config), hidden_size=inputs, gated=is_gated(module),
        intermediate_size=outputs // 2 if is_gated(module) else outputs,
        weight_layout="ekn" if module.is_transposed else "enk", bias=module.has_bias,
        activation=activation.kind if fused else "the model's own code",
        gate_layout="interleaved" if fused and activation.interleaved else "halves",
    )


@pytest.fixture(scope="module")
def configs():
    """[(class, module, its config)] of each family."""
    return [(experts, module, module.config) for experts, module in experts_on_meta()]


def _read(path):
    return subprocess.run([TUNE, "models", "--json", "--config", path], capture_output=True, text=True)


needs_the_tool = pytest.mark.skipif(not os.path.exists(TUNE), reason="needs SMLORA_TUNE, the path of smlora-tune")


@needs_the_tool
def test_every_config_is_read_as_its_experts_are_made(configs, tmp_path):
    wrong = {}
    for experts, module, config in configs:
        path = tmp_path / f"{experts.__name__}.json"
        config.to_json_file(path)
        done = _read(path)
        if experts.__name__ in REFUSED:
            assert done.returncode == 2 and REFUSED[experts.__name__] in done.stderr, done.stderr
            continue
        if done.returncode != 0:
            wrong[experts.__name__] = done.stderr.strip()
            continue
        (got,) = json.loads(done.stdout)["models"]
        expected = _shape(experts, module, config)
        different = {key: (got[key], value) for key, value in expected.items() if got[key] != value}
        if different:
            wrong[experts.__name__] = different
    assert len(configs) > 30 and not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def _whole_configs():
    """(config, that of its text) of each family whose config has parts."""
    for family, offers_a_choice in families():
        for kind in configs_in(family) if offers_a_choice else ():
            if kind.sub_configs:
                whole = kind()
                text = complete(whole.get_text_config())
                if text is not whole:
                    yield whole, text


@needs_the_tool
def test_a_config_with_parts_is_read_as_that_of_its_text(tmp_path):
    seen, path = set(), tmp_path / "config.json"
    for configs in _whole_configs():
        said = []
        for config in configs:
            config.to_json_file(path)
            done = _read(path)
            said.append((done.returncode, done.stdout, done.stderr))
        name = type(configs[0]).__name__
        assert said[0] == said[1], name
        seen.add(name)
    assert len(seen) > 10


def _configs_without_a_choice():
    """Those that speak of experts, of families for whose experts one cannot choose an implementation."""
    for family, offers_a_choice in families():
        if offers_a_choice:
            continue
        for kind in configs_in(family):
            try:
                config = kind()
                text = config.get_text_config()
            except Exception:  # whatever a config without defaults, or with two texts, raises
                continue
            if type(text).__module__ == kind.__module__ and "expert" in text.to_json_string():
                yield config


@needs_the_tool
def test_a_config_without_a_choice_is_refused(tmp_path):
    said = {}
    for config in _configs_without_a_choice():
        path = tmp_path / f"{type(config).__name__}.json"
        config.to_json_file(path)
        done = _read(path)
        assert done.returncode == 2, f"{path.stem}: {done.stdout}"
        said[path.stem] = done.stderr
    own = {name for name, error in said.items() if "computes its experts by its own code" in error}
    assert {"DbrxConfig", "DogeConfig", "JetMoeConfig", "Llama4Config", "LongcatFlashConfig", "Step3p7Config"} <= own
