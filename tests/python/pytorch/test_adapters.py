"""Adapters exported for servers: what each server makes of the file, by the names and layouts that it documents, is the delta
W that PEFT trained, expert by expert."""

import json
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.adapters  # noqa: E402
from models import CONFIGS, TARGETS, build, loss_of, tokens, with_adapter  # noqa: E402
from reference import assert_close  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from smlora.adapters import _folder  # noqa: E402

BY_EXPERT = sorted(CONFIGS.keys() - {"gpt_oss"})
# Of checkpoints, as vLLM and llama.cpp name modules: the block, gate, up and down.
MIXTRAL = ("block_sparse_moe", "w1", "w3", "w2")
OTHERS = ("mlp", "gate_proj", "up_proj", "down_proj")
PREFIX = "base_model.model.model.layers"


class Trained:
    """A model with an adapter, saved beside the config of its base."""

    def __init__(self, folder, name, dtype=torch.float32, **changes):
        self.name, self.base, self.path = name, folder / "base", folder / "adapter"
        self.model = with_adapter(build(name, "eager", dtype=dtype), **changes)
        self.model.get_base_model().config.save_pretrained(self.base)
        self.model.save_pretrained(self.path)

    def deltas(self):
        """{module or parameter: delta W [E, out, in] or [out, in]}, by PEFT."""
        deltas = {}
        for name, module in self.model.get_base_model().named_modules():
            if not isinstance(module, peft.tuners.lora.LoraLayer):
                continue
            delta = module.get_delta_weight("default").detach()
            name = re.sub(r"(\.base_layer)+$", "", name)
            if isinstance(module, peft.tuners.lora.layer.ParamWrapper):
                name = f"{name}.{module.parameter_name}"
                delta = delta.transpose(1, 2) if module.get_base_layer().is_transposed else delta
            deltas[name] = delta
        return deltas

    def export(self, to, **options):
        out = self.path.parent / to
        exported = smlora.adapters.export(self.path, to, out, base=self.base, **options)
        config = json.loads((out / "adapter_config.json").read_text())
        assert (exported.path, exported.rank) == (out, config["r"])
        assert not config["rank_pattern"] and not config["alpha_pattern"] and not config["use_rslora"]
        return config, load_file(out / "adapter_model.safetensors")


@pytest.fixture
def trained(tmp_path):
    return lambda name, **changes: Trained(tmp_path, name, **changes)


# ---- what servers make of a file --------------------------------------------------------------------------------------


def _product(config, A, B):
    """As servers scale: one alpha and one rank for all modules."""
    assert A.shape[-2] == B.shape[-1] == config["r"]
    return config["lora_alpha"] / config["r"] * B.double() @ A.double()


def _pair(tensors, module):
    return tensors.pop(f"{module}.lora_A.weight"), tensors.pop(f"{module}.lora_B.weight")


def _layers(tensors):
    return sorted({int(number) for number in re.findall(rf"{re.escape(PREFIX)}\.(\d+)\.\S*experts", "\n".join(tensors))})


def _from_matrices(config, tensors, E):
    """vLLM's FusedMoE3DWithLoRA, and PEFT."""
    deltas = {}
    for layer in _layers(tensors):
        for module, name in (("experts.base_layer", "gate_up_proj"), ("experts", "down_proj")):
            A, B = _pair(tensors, f"{PREFIX}.{layer}.mlp.{module}")
            A, B = A.reshape(E, -1, A.shape[1]), B.reshape(B.shape[0], -1, E).permute(2, 0, 1)
            deltas[f"model.layers.{layer}.mlp.experts.{name}"] = _product(config, A, B)
    return deltas


def _by_expert(config, tensors, E, names):
    """vLLM's FusedMoEWithLoRA and llama.cpp's converter: a matrix for each expert and projection."""
    block, gate, up, down = names
    deltas = {}
    for layer in _layers(tensors):
        def of(name):
            experts = f"{PREFIX}.{layer}.{block}.experts"
            return torch.stack([_product(config, *_pair(tensors, f"{experts}.{e}.{name}")) for e in range(E)])

        deltas[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = torch.cat([of(gate), of(up)], 1)
        deltas[f"model.layers.{layer}.mlp.experts.down_proj"] = of(down)
    return deltas


def _from_sglang(config, tensors, interleaved):
    """It repeats A of gate_up_proj for gate and up, whose rows of B are halves."""
    deltas = {}
    for layer in _layers(tensors):
        for name in ("gate_up_proj", "down_proj"):
            delta = _product(config, *_pair(tensors, f"{PREFIX}.{layer}.mlp.experts.{name}"))
            if name == "gate_up_proj" and interleaved:
                delta = torch.stack(delta.chunk(2, 1), 2).flatten(1, 2)
            deltas[f"model.layers.{layer}.mlp.experts.{name}"] = delta
    return deltas


def _of_others(config, tensors):
    """Those of modules that are no experts; nothing else is left in the file."""
    modules = {name.rpartition(".lora_")[0] for name in tensors}
    deltas = {module.removeprefix("base_model.model."): _product(config, *_pair(tensors, module)) for module in modules}
    assert not tensors
    return deltas


def _read(to, trained, config, tensors):
    E = 6
    if to in ("vllm", "peft"):
        deltas = _from_matrices(config, tensors, E)
    elif to == "sglang":
        deltas = _from_sglang(config, tensors, interleaved=trained.name == "gpt_oss")
    else:
        deltas = _by_expert(config, tensors, E, MIXTRAL if trained.name == "mixtral" else OTHERS)
    return deltas | _of_others(config, tensors)


def _compare(trained, got, dtype=torch.float32):
    expected = trained.deltas()
    assert got.keys() >= expected.keys() and any("experts" in name for name in expected)
    for name, delta in got.items():
        wanted = expected.get(name)
        # A projection without an adapter has one of zeros.
        assert_close(delta.float(), torch.zeros_like(delta).float() if wanted is None else wanted.float(), dtype, name)


@pytest.mark.parametrize("to, name", [
    *((to, name) for to in ("vllm", "sglang", "peft") for name in sorted(CONFIGS)),
    *((to, name) for to in ("vllm-2d", "gguf-2d") for name in BY_EXPERT),
])
def test_servers_read_the_trained_delta(to, name, trained):
    model = trained(name, target_modules=["o_proj"])
    _compare(model, _read(to, model, *model.export(to)))


@pytest.mark.parametrize("to", smlora.adapters.LAYOUTS)
def test_one_rank_and_scaling_for_all(to, trained):
    model = trained("qwen3_moe", target_modules=["q_proj", "o_proj"], r=3, lora_alpha=5, use_rslora=True,
                    rank_pattern={"down_proj": 5, "layers.0.self_attn.q_proj": 9}, alpha_pattern={"o_proj": 7})
    config, tensors = model.export(to)
    assert config["r"] == (16 if "vllm" in to else 9)
    _compare(model, _read(to, model, config, tensors))


@pytest.mark.parametrize("to", ["vllm", "vllm-2d", "sglang"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_projection_without_an_adapter_gets_zeros(to, target, trained):
    model = trained("olmoe", target_parameters=[target])
    got = _read(to, model, *model.export(to))
    assert sum("experts" in name for name in got) == 4
    _compare(model, got)


def test_peft_gets_no_zeros(trained):
    model = trained("olmoe", target_parameters=["mlp.experts.down_proj"])
    _, tensors = model.export("peft")
    assert len(tensors) == 4


def test_16_bits_keep_their_type_and_bits(trained):
    model = trained("mixtral", dtype=torch.bfloat16)
    model.model.to(torch.bfloat16)
    model.model.save_pretrained(model.path)
    config, tensors = model.export("vllm-2d", rank=32)
    assert config["r"] == 32 and {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    saved = load_file(model.path / "adapter_model.safetensors")[f"{PREFIX}.0.mlp.experts.lora_A.weight"]
    assert torch.equal(tensors[f"{PREFIX}.0.block_sparse_moe.experts.3.w2.lora_A.weight"][:4], saved[12:16])


def test_modules_have_the_names_of_the_checkpoint(trained):
    _, tensors = trained("mixtral", target_modules=["gate"]).export("vllm-2d")
    assert f"{PREFIX}.1.block_sparse_moe.gate.lora_A.weight" in tensors


def test_an_adapter_of_an_earlier_peft(trained):
    model = trained("qwen3_moe")
    file = model.path / "adapter_model.safetensors"
    swapped = {}
    for name, tensor in load_file(file).items():
        # In and out the other way round, experts still slowest in A and fastest in B.
        A = name.endswith("lora_A.weight")
        other = name.replace("lora_A", "lora_B") if A else name.replace("lora_B", "lora_A")
        outer, R, E = tensor.shape[int(A)], 4, 6
        swapped[other] = (tensor.view(E, R, outer).permute(2, 1, 0).reshape(outer, R * E) if A
                          else tensor.view(outer, R, E).permute(2, 1, 0).reshape(E * R, outer)).contiguous()
    save_file(swapped, file)
    for to in ("peft", "sglang"):
        _compare(model, _read(to, model, *model.export(to)))


# ---- readers of others ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to, name", [("peft", "gpt_oss"), ("peft", "mixtral"), ("vllm", "qwen3_moe"), ("vllm-2d", "mixtral"),
                                      ("vllm-2d", "qwen3_moe"), ("gguf-2d", "olmoe")])
def test_peft_reads_it(to, name, trained):
    """Experts one by one are what adapters of Transformers 4 are, which PEFT reads, too."""
    model = trained(name, target_modules=["o_proj"])
    model.export(to)
    read = peft.PeftModel.from_pretrained(build(name, "smlora"), model.path.parent / to)
    ids = tokens()
    assert_close(loss_of(read, ids), loss_of(model.model, ids), torch.float32, "loss")


@pytest.mark.parametrize("name, architecture", [("qwen3_moe", "QWEN3MOE"), ("mixtral", "LLAMA"), ("olmoe", "OLMOE"),
                                                ("deepseek_v3", "DEEPSEEK2")])
def test_llama_cpp_knows_the_names(name, architecture, trained):
    gguf = pytest.importorskip("gguf", reason="needs gguf")
    _, tensors = trained(name, target_modules=["o_proj"]).export("gguf-2d")
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture), 2)
    # Its converter stacks experts under the name without their number.
    modules = {re.sub(r"\.experts\.\d+\.", ".experts.", module.removeprefix("base_model.model.").rpartition(".lora_")[0])
               for module in tensors}
    known = {names.get_name(module) for module in modules}
    assert {"blk.1.ffn_gate_exps", "blk.1.ffn_up_exps", "blk.1.ffn_down_exps", "blk.1.attn_output"} <= known
    assert None not in known


@pytest.mark.parametrize("to, name", [("vllm", "gpt_oss"), ("vllm-2d", "mixtral"), ("vllm-2d", "qwen3_moe")])
def test_vllm_reads_it(to, name, trained):
    reader = pytest.importorskip("vllm.lora.lora_model", reason="needs vllm, whose readers need the libraries of a GPU",
                                 exc_type=ImportError)
    from vllm.lora.peft_helper import PEFTHelper

    model = trained(name)
    config, tensors = model.export(to)
    folder = str(model.path.parent / to)
    helper = PEFTHelper.from_local_dir(folder, None)
    expected = {"experts"} | {module.partition(".experts.")[2] and f"experts.{module.partition('.experts.')[2]}"
                              for module in (name.rpartition(".lora_")[0] for name in tensors)}
    lora = reader.LoRAModel.from_local_checkpoint(folder, expected, helper, lora_model_id=1, device="cpu")
    assert lora.rank == config["r"] and len(lora.loras) == len(tensors) // 2
    assert {weights.scaling for weights in lora.loras.values()} == {config["lora_alpha"] / config["r"]}


# ---- refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(trained):
    return trained("olmoe")


def _change(path, **changes):
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _change_tensors(path, change):
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def _refused(saved, to="vllm", **options):
    out = saved.path.parent / "out"
    with pytest.raises(ValueError) as caught:
        smlora.adapters.export(saved.path, to, **({"out": out, "base": saved.base} | options))
    assert not out.exists() and not list(saved.path.parent.glob(".*"))
    return str(caught.value)


def test_arguments_are_named(saved, tmp_path):
    assert _refused(saved, to="tgi") == "to: expected one of vllm, vllm-2d, sglang, gguf-2d, peft, got 'tgi'"
    assert _refused(saved, out=saved.base) == f"out: expected a folder that does not exist, got {saved.base}"
    assert _refused(saved, rank=3) == "rank: expected a whole number from 4, the largest rank of the adapter, got 3"
    assert _refused(saved, rank=12) == "rank: expected one of 1, 8, 16, 32, 64, 128, 256, 320, 512, got 12"
    assert _refused(saved, to="sglang", rank=4.0).startswith("rank: expected a whole number from 4")
    assert _refused(saved, base=str(tmp_path)).startswith("base: expected a model with a config.json that Transformers reads")
    _change(saved.path, base_model_name_or_path=None)
    assert _refused(saved, base=None).startswith("base: expected the folder or name of the model")
    saved.path = tmp_path / "base"
    assert _refused(saved) == f"path: expected the folder of an adapter, with adapter_config.json in it, got {saved.path}"


@pytest.mark.parametrize("changes, message", [
    (dict(peft_type="LOHA"), "adapter_config.json: peft_type: expected 'LORA', got 'LOHA'"),
    (dict(bias="all"), "adapter_config.json: bias: expected 'none', got 'all'"),
    (dict(use_dora=True), "adapter_config.json: use_dora: expected an adapter without it, got True"),
    (dict(modules_to_save=["lm_head"]),
     "adapter_config.json: modules_to_save: expected an adapter without it, got ['lm_head']"),
    (dict(lora_alpha=None), "adapter_config.json: lora_alpha: expected a number, got None"),
    (dict(r=8), f"{PREFIX}.0.mlp.experts.base_layer.lora_A.weight: expected 6 experts of rank 8, 48 rows, got 24"),
])
def test_configs_that_cannot_be_served_are_named(changes, message, saved):
    _change(saved.path, **changes)
    assert _refused(saved) == message


def test_tensors_that_do_not_fit_are_named(saved):
    name = f"{PREFIX}.1.mlp.experts.lora_B.weight"

    def cut(tensors):
        tensors[name] = tensors[name][:, :-1].contiguous()

    _change_tensors(saved.path, cut)
    assert _refused(saved) == (
        f"{PREFIX}.1.mlp.experts: expected factors [E * r, in] and [out, r * E] of gate_up_proj [6, 48, 32], "
        "down_proj [6, 32, 24], got [24, 24] and [32, 23]"
    )
    _change_tensors(saved.path, lambda tensors: tensors.pop(name))
    assert _refused(saved) == f"{PREFIX}.1.mlp.experts: expected lora_A and lora_B, found no lora_B"
    _change_tensors(saved.path, lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.zeros(1)}))
    assert _refused(saved).startswith("base_model.model.lm_head.weight: expected factors of LoRA alone")


def test_a_model_without_the_modules_is_refused(saved, tmp_path):
    other = Trained(tmp_path / "other", "mixtral", target_modules=["o_proj"])
    config = json.loads((other.base / "config.json").read_text()) | {"num_hidden_layers": 1}
    (other.base / "config.json").write_text(json.dumps(config))
    assert _refused(saved, base=other.base) == (
        "base: expected the model that the adapter was trained on, which has a module model.layers.1.mlp.experts; "
        f"{str(other.base)!r} has none"
    )


def test_square_weights_of_an_earlier_peft_are_refused(tmp_path):
    model = with_adapter(build("gpt_oss", "eager", intermediate_size=32), target_parameters=["mlp.experts.down_proj"])
    model.get_base_model().config.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    smlora.adapters.export(tmp_path / "adapter", "sglang", tmp_path / "fine", base=tmp_path / "base")
    _change(tmp_path / "adapter", peft_version="0.19.0")
    with pytest.raises(ValueError, match="peft_version: expected 0.19.1 or later, as the weights are square"):
        smlora.adapters.export(tmp_path / "adapter", "sglang", tmp_path / "out", base=tmp_path / "base")


def test_packed_checkpoints_have_no_names_for_one_expert(trained):
    model = trained("gpt_oss")
    assert _refused(model, to="vllm-2d").startswith("to: the checkpoints of GptOssExperts keep all experts in one tensor")


def test_a_rank_beyond_the_servers_is_refused(trained):
    model = trained("olmoe", r=513)
    assert _refused(model, to="vllm-2d") == "to: expected an adapter of a rank up to 512, got 513"


@pytest.mark.parametrize("step", ["save_file", "fsync", "rename"])
def test_nothing_is_left_half_written(step, saved, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    import safetensors.torch

    where = {"save_file": safetensors.torch, "fsync": _folder.os, "rename": _folder.pathlib.Path}[step]
    monkeypatch.setattr(where, step, fail)
    out = saved.path.parent / "out"
    with pytest.raises(OSError, match="No space left"):
        smlora.adapters.export(saved.path, "vllm", out, base=saved.base)
    assert sorted(entry.name for entry in saved.path.parent.iterdir()) == ["adapter", "base"]


# ---- the command ------------------------------------------------------------------------------------------------------


def _run(*arguments):
    return subprocess.run([sys.executable, "-m", "smlora.adapters", *map(str, arguments)], capture_output=True, text=True)


def test_the_command_exports(saved):
    out = saved.path.parent / "out"
    done = _run(saved.path, "--to", "sglang", "--out", out, "--base", saved.base)
    assert (done.returncode, done.stdout) == (0, f"{out}: experts of 2 layers, rank 4, scaling 2\n"), done.stderr
    assert (out / "adapter_config.json").is_file()
    again = _run(saved.path, "--to", "sglang", "--out", out, "--base", saved.base)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.endswith(f"error: out: expected a folder that does not exist, got {out}\n")
