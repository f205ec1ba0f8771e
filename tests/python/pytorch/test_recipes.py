"""The recipes of docs/recipes.md, each with the program that it is for, where it is installed."""

import os
import re
import subprocess
import sys

import pytest
import torch
from pages import code_of

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.transformers as st  # noqa: E402
from models import build  # noqa: E402
from reference import assert_close  # noqa: E402

NAME = "Qwen/Qwen3-30B-A3B"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small model of the recipes' family."""
    folder = tmp_path_factory.mktemp("model")
    build("qwen3_moe", "eager").save_pretrained(folder)
    return folder


@pytest.fixture
def unregistered():
    """As in a process that has not called register()."""
    from transformers.integrations import finegrained_fp8, moe

    held = [moe.ALL_EXPERTS_FUNCTIONS, getattr(finegrained_fp8, "ALL_FP8_EXPERTS_FUNCTIONS", None)]
    functions = [(registry, registry["smlora"]) for registry in held if registry is not None]
    for registry, _ in functions:
        registry._global_mapping.pop("smlora", None)
        registry._local_mapping.pop("smlora", None)
    yield
    for registry, function in functions:
        registry.register("smlora", function)


def load(folder, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **options)


# ---- registering ------------------------------------------------------------------------------------------------------


def test_without_register_the_error_says_what_to_call(unregistered, checkpoint):
    with pytest.raises(ValueError, match=r'"smlora"` is not supported.*smlora\.transformers\.register\(\).*smlora\.auto'):
        load(checkpoint, experts_implementation="smlora")
    with pytest.raises(ValueError, match="not supported") as other:
        load(checkpoint, experts_implementation="unknown")
    assert "smlora.auto" not in str(other.value)


def test_importing_auto_registers(checkpoint):
    """In a process of its own."""
    script = (
        "import smlora.auto, smlora.transformers, transformers\n"
        f"model = transformers.AutoModelForCausalLM.from_pretrained({str(checkpoint)!r}, experts_implementation='smlora')\n"
        "assert {layer.runs for layer in smlora.transformers.status(model)} == {'fused'}\n"
    )
    path = ":".join(filter(None, sys.path))
    environment = os.environ | {"PYTHONPATH": path}
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


# ---- axolotl ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def axolotl_config():
    """The recipe's settings, and how axolotl makes its plugins of them."""
    base = pytest.importorskip("axolotl.integrations.base", reason="needs axolotl", exc_type=ImportError)
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    dicts = pytest.importorskip("axolotl.utils.dict", reason="needs axolotl", exc_type=ImportError)
    manager = base.PluginManager.get_instance()
    manager.plugins.clear()

    def make(**changes):
        config = dicts.DictDefault(yaml.safe_load(code_of("recipes.md", "axolotl", "yaml")) | changes)
        for name in config.plugins:
            manager.register(name)
            assert name in manager.plugins
        return config, manager

    yield make
    manager.plugins.clear()


def test_axolotl(axolotl_config, checkpoint):
    config, manager = axolotl_config()
    manager.pre_model_load(config)
    assert config.experts_implementation == "smlora"
    model = load(checkpoint)
    model.set_experts_implementation(config.experts_implementation)  # as axolotl's loader does
    lora = peft.LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=[],
                           target_parameters=config.lora_target_parameters)
    model = peft.get_peft_model(model, lora)
    assert {layer.runs for layer in st.status(model)} == {"fused"}
    assert all("rank 16 inside" in layer.adapter for layer in st.status(model))


@pytest.mark.parametrize("switch", ["use_scattermoe", "use_sonicmoe"])
def test_axolotls_own_kernels_and_smlora_are_not_taken_together(switch, axolotl_config):
    config, manager = axolotl_config(**{switch: True})
    with pytest.raises(ValueError, match=f"{switch}: expected it off with smlora.axolotl.SmloraPlugin"):
        manager.pre_model_load(config)


EXPERT_PARALLEL = "axolotl.integrations.expert_parallel.plugin.ExpertParallelPlugin"


def test_axolotls_expert_parallelism_comes_first(axolotl_config):
    pytest.importorskip("axolotl.integrations.expert_parallel.plugin", reason="needs axolotl", exc_type=ImportError)
    config, manager = axolotl_config(plugins=["smlora.axolotl.SmloraPlugin", EXPERT_PARALLEL], expert_parallel_size=2)
    with pytest.raises(ValueError, match="plugins: expected ExpertParallelPlugin before smlora.axolotl.SmloraPlugin"):
        manager.plugins["smlora.axolotl.SmloraPlugin"].pre_model_load(config)


def test_behind_deep_ep_smlora_computes_what_axolotls_own_kernel_does(axolotl_config):
    """DeepEP itself needs GPUs: what it calls is given the rows of a rank, with -1 for the experts of others."""
    name = "axolotl.integrations.expert_parallel.experts_fn"
    experts_fn = pytest.importorskip(name, reason="needs axolotl", exc_type=ImportError)
    config, manager = axolotl_config(
        plugins=[EXPERT_PARALLEL, "smlora.axolotl.SmloraPlugin"], expert_parallel_size=2,
        experts_implementation="deep_ep_grouped_mm",
    )
    manager.plugins["smlora.axolotl.SmloraPlugin"].pre_model_load(config)
    assert config.experts_implementation == "deep_ep_smlora"
    model = build("qwen3_moe", "eager")
    model.set_experts_implementation(config.experts_implementation)
    assert {layer.runs for layer in st.status(model)} == {"fused"}
    experts = model.model.layers[0].mlp.experts
    x, gates = torch.randn(11, 32), torch.rand(11, 2)
    index = torch.randint(-1, 6, (11, 2))
    got, expected = (experts_fn._LOCAL_KERNELS[name](experts, x, index, gates) for name in ("smlora", "eager"))
    assert_close(got, expected, torch.float32)


# ---- TRL --------------------------------------------------------------------------------------------------------------


def save_tokenizer(folder):
    """One of 97 words, as the small models have."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = {word: number for number, word in enumerate(["<pad>", "<eos>", "<bos>", *map(str, range(94))])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<eos>"
    ).save_pretrained(folder)


def test_trl(checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("trl", reason="needs trl")
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    save_tokenizer(checkpoint)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    code = code_of("recipes.md", "TRL")
    assert code.count(NAME) == 1
    small = '"output", max_steps=2, report_to="none", use_cpu=True, bf16=False'
    code = code.replace(NAME, str(checkpoint)).replace('"output"', small)
    found = {"dataset": datasets.Dataset.from_dict({"text": [" ".join(map(str, range(i, i + 20))) for i in range(16)]})}
    exec(compile(code, "recipes.md, TRL", "exec"), found)
    model = found["trainer"].model
    assert {layer.runs for layer in st.status(model)} == {"fused"}
    assert all("rank 16 inside" in layer.adapter for layer in st.status(model))
    trained = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert trained and all(parameter.abs().max() > 0 for parameter in trained)


# ---- verl and ms-swift ------------------------------------------------------------------------------------------------


def settings(section):
    """{name: value} of a recipe's command line."""
    text = code_of("recipes.md", section, "sh").replace("\\\n", " ")
    return dict(re.findall(r"\+?([\w.]+)=([^\s\"]+)", text))


def test_verl(checkpoint):
    import_utils = pytest.importorskip("verl.utils.import_utils", reason="needs verl", exc_type=ImportError)
    model_utils = pytest.importorskip("verl.utils.model", reason="needs verl", exc_type=ImportError)
    prefix = "actor_rollout_ref.model."
    found = {name.removeprefix(prefix): value for name, value in settings("verl").items() if name.startswith(prefix)}
    import_utils.import_external_libs(found["external_lib"])
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    prefix = "override_config."
    overrides = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    model_utils.update_model_config(config, overrides)
    model = load(checkpoint, config=config)
    assert {layer.runs for layer in st.status(model)} == {"fused"}


def test_a_config_may_say_it_by_its_own_name(checkpoint):
    """What the recipe for verl relies on."""
    found = settings("verl")
    name = "_experts_implementation"
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    setattr(config, name, found[f"actor_rollout_ref.model.override_config.{name}"])
    assert {layer.runs for layer in st.status(load(checkpoint, config=config))} == {"fused"}


def test_ms_swift(tmp_path):
    swift = pytest.importorskip("swift.utils", reason="needs ms-swift", exc_type=ImportError)
    file = tmp_path / "register_smlora.py"
    file.write_text(re.search(r"echo '(.*)' > register_smlora.py", code_of("recipes.md", "ms-swift", "sh")).group(1))
    swift.import_external_file(str(file))
    assert "smlora.auto" in sys.modules
