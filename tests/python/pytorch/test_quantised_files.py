"""Checkpoints whose experts are quantised."""

import json
import logging
import weakref

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora  # noqa: E402
import smlora.transformers as st  # noqa: E402
from models import loss_of, tokens  # noqa: E402
from quantised_files import FILES, fp8, modelopt  # noqa: E402
from quantised_models import experts_of, plain  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from smlora.transformers import _warnings  # noqa: E402
from smlora.transformers._weights import PARAMETERS, quantized_weight  # noqa: E402
from test_quantised_by_others import REFUSED, Torchao  # noqa: E402
from test_quantised_models import adapted, compare, decoded, digest  # noqa: E402
from transformers.quantizers import auto  # noqa: E402
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer  # noqa: E402
from transformers.quantizers.quantizer_mxfp4 import Mxfp4HfQuantizer  # noqa: E402
from transformers.trainer_utils import validate_quantization_for_training  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_chosen():
    """As after smlora.transformers.register()."""
    yield
    st.register()


@pytest.fixture(autouse=True)
def without_fp8(monkeypatch):
    """Transformers decodes FP8 checkpoints, as it does on the CPU and below compute capability 8.9."""

    def decode(self, *arguments, **named):
        self.quantization_config.dequantize = True

    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", decode)


@pytest.fixture
def with_fp8(without_fp8, monkeypatch):
    """Transformers keeps FP8 checkpoints, as it does on a GPU of compute capability 8.9."""
    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda self, *arguments, **named: None)


reads_experts = pytest.mark.skipif(
    tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 21),
    reason="needs Transformers 5.21, the first in which smlora reads quantised checkpoints as they are"
)


@pytest.fixture(params=[pytest.param(name, marks=reads_experts) for name in FILES])
def folder(request, tmp_path):
    if "compressed" in request.param or "int4" in request.param:
        pytest.importorskip("compressed_tensors", reason="Transformers needs it for these files")
    return FILES[request.param](tmp_path / "quantised")


def load(folder, **options):
    options = dict(experts_implementation="smlora", dtype=torch.float32) | options
    model, found = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not found["missing_keys"] and not found["mismatched_keys"]
    return model


def stored_values(folder):
    """{path of a parameter of the model: its values}, of what lies in the folder, matrix by matrix."""
    block = json.loads((folder / "config.json").read_text())["quantization_config"].get("weight_block_size")
    matrices, files = {}, load_file(folder / "model.safetensors")

    def value(stem):
        of = {name.removeprefix(stem): tensor[None] for name, tensor in files.items() if name.startswith(stem)}
        if "_blocks" in of:
            return smlora.from_mxfp4(of["_blocks"][0], of["_scales"][0]).transpose(1, 2).dequantize(torch.float32)
        if "weight_packed" in of:
            weight = smlora.from_compressed_tensors(
                of["weight_packed"], of["weight_scale"], weight_global_scale=of.get("weight_global_scale")
            )
        elif "weight_scale_2" in of:
            weight = smlora.from_nvfp4(of["weight"], of["weight_scale"], of["weight_scale_2"])
        elif block is None:
            weight = smlora.from_fp8(of["weight"], of["weight_scale_inv"].view(1, 1, 1), max(of["weight"].shape))
        else:
            scales = of["scale"] if "scale" in of else of["weight_scale_inv"]
            if of["weight"].dtype == torch.int8:
                weight = smlora.from_mxfp4(of["weight"], scales)
            else:
                mxfp8 = block == [1, 32]
                weight = smlora.from_mxfp8(of["weight"], scales) if mxfp8 else smlora.from_fp8(of["weight"], scales, block)
        return weight.dequantize(torch.float32)[0]

    for layer in range(2):
        path = f"model.layers.{layer}.mlp.experts."
        if f"{path}gate_up_proj_blocks" in files:
            matrices |= {path + name: value(path + name) for name in PARAMETERS}
            continue
        of = {name: [value(f"{path}{e}.{name}.") for e in range(6)] for name in ("gate_proj", "up_proj", "down_proj")}
        gate_up = [torch.cat(pair) for pair in zip(of["gate_proj"], of["up_proj"])]
        matrices |= {f"{path}gate_up_proj": torch.stack(gate_up), f"{path}down_proj": torch.stack(of["down_proj"])}
    return matrices


def test_experts_are_read_as_they_lie_in_the_files(folder):
    model = load(folder)
    values = stored_values(folder)
    for path, expected in values.items():
        module, _, name = path.rpartition(".")
        weight = quantized_weight(model.get_submodule(module), name)
        assert torch.equal(weight.dequantize(torch.float32), expected), path
    assert len(values) == 4


@reads_experts
@pytest.mark.parametrize("powers_of_two", [True, False])
def test_scales_are_of_the_type_that_is_stored_whatever_the_config_says(powers_of_two, tmp_path):
    """DeepSeek-V3.1 says how its scales were rounded, which are stored as fp32."""
    folder = fp8(tmp_path, scale_fmt="ue8m0", powers_of_two=powers_of_two)
    model, values = load(folder), stored_values(folder)
    for path, expected in values.items():
        module, _, name = path.rpartition(".")
        weight = quantized_weight(model.get_submodule(module), name)
        assert weight.scales.dtype == torch.float32
        assert torch.equal(weight.scales, torch.exp2(weight.scales.log2().round())) == powers_of_two
        assert torch.equal(weight.dequantize(torch.float32), expected)
    assert len(values) == 4


@reads_experts
@pytest.mark.parametrize("lacking", [".0.mlp.experts.5.", ".0.mlp.experts.{}.up_proj."])
def test_files_that_lack_experts_are_not_loaded(lacking, tmp_path):
    folder = FILES["NVFP4 of modelopt"](tmp_path)
    stored = load_file(folder / "model.safetensors")
    left = {name: tensor for name, tensor in stored.items() if not any(lacking.format(e) in name for e in range(6))}
    assert 0 < len(left) < len(stored)
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="conversion of the weights"):
        load(folder)


def test_loss_and_gradients_are_those_of_the_decoded_model(folder):
    model = load(folder)
    before = digest(model)
    compare(adapted(decoded(model)), adapted(model), tokens())
    assert digest(model) == before


def test_the_trainer_takes_such_a_model_with_adapters(folder):
    validate_quantization_for_training(adapted(load(folder)))


def test_what_could_not_be_read_again_is_not_saved(folder, tmp_path):
    model = load(folder)
    with pytest.raises(NotImplementedError, match=r"experts\.\w+_proj is quantised, which Transformers cannot save"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()


@reads_experts
@pytest.mark.parametrize("name", ["fp8", "fp8, bf16 scales", "fp8, fp32 scales that were rounded", "fp8, two half blocks",
                                  "mxfp8", "DeepSeek-V4's fp4"])
def test_where_transformers_keeps_fp8_its_own_modules_hold_the_experts(name, tmp_path, with_fp8):
    folder = FILES[name](tmp_path)
    model = load(folder)
    assert {type(module).__name__ for module in experts_of(model)} == {"FP8Experts"}
    for path, expected in stored_values(folder).items():
        module, _, parameter = path.rpartition(".")
        assert torch.equal(quantized_weight(model.get_submodule(module), parameter).dequantize(torch.float32), expected)
    compare(adapted(decoded(model)), adapted(model), tokens())


@reads_experts
def test_what_was_read_does_not_stay_beside_what_was_made_of_it(tmp_path, monkeypatch):
    from smlora.transformers import _checkpoints
    from transformers import core_model_loading

    folder = modelopt(tmp_path)
    read, left = [], []
    materialise, hold = core_model_loading._materialize_copy, _checkpoints.hold

    def recorded(*arguments, **named):
        tensor = materialise(*arguments, **named)
        if tensor.dtype == torch.uint8:  # codes
            read.append(weakref.ref(tensor))
        return tensor

    def held(module, name, weight):
        left.append((weight.codes.nbytes, sum(reference().nbytes for reference in read if reference() is not None)))
        hold(module, name, weight)

    monkeypatch.setattr(core_model_loading, "_materialize_copy", recorded)
    monkeypatch.setattr(_checkpoints, "hold", held)
    load(folder)
    assert len(read) == 36 and len(left) == 4
    for i, (_, alive) in enumerate(left):
        assert alive <= sum(codes for codes, _ in left[i:])


@reads_experts
def test_decoded_experts_can_be_saved(tmp_path):
    for name in ("gpt-oss", "NVFP4 of modelopt", "fp8", "fp8, one scale", "mxfp8", "DeepSeek-V4's fp4"):
        model = st.dequantize_experts(load(FILES[name](tmp_path / name)), torch.float32)
        model.save_pretrained(tmp_path / "again")
        again, ids = load(tmp_path / "again"), tokens()
        assert again.state_dict().keys() == model.state_dict().keys()
        assert torch.equal(loss_of(again, ids), loss_of(model, ids))


@reads_experts
@pytest.mark.parametrize("name", ["int4 in groups of 32", "NVFP4 of compressed-tensors", "fp8"])
def test_decoded_experts_whose_config_says_otherwise_are_not_saved(name, tmp_path, with_fp8):
    if name != "fp8":
        pytest.importorskip("compressed_tensors", reason="Transformers needs it for these files")
    model = st.dequantize_experts(load(FILES[name](tmp_path)), torch.float32)
    with pytest.raises(NotImplementedError, match="experts were decoded, but config.json would say that they are stored as"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("chosen", [pytest.param(None, marks=reads_experts), "nf4"])
def test_experts_below_adapters_can_be_decoded_merged_and_saved(chosen, tmp_path):
    st.register(chosen)
    folder = tmp_path / "model"
    if chosen is None:
        FILES["gpt-oss"](folder)
    else:
        plain().save_pretrained(folder)
    model, ids = adapted(load(folder)), tokens()
    merged = st.dequantize_experts(model, torch.float32).merge_and_unload()
    assert getattr(merged.config, "quantization_config", None) is None
    merged.save_pretrained(tmp_path / "merged")
    st.register()
    assert torch.equal(loss_of(load(tmp_path / "merged"), ids), loss_of(merged, ids))


def test_experts_of_another_implementation_are_not_quantised_and_it_is_said(tmp_path):
    plain().save_pretrained(tmp_path)
    st.register("nf4")
    _warnings.warned.clear()
    with pytest.warns(UserWarning, match='quantize_experts="nf4".*experts_implementation="smlora"; this one is not'):
        model = load(tmp_path, experts_implementation="eager")
    st.register()
    assert not any(quantized_weight(module, name) for module in experts_of(model) for name in PARAMETERS)


def test_gpt_oss_is_decoded_as_before_for_another_implementation(tmp_path):
    folder = FILES["gpt-oss"](tmp_path)
    model = load(folder, experts_implementation="eager")
    for path, expected in stored_values(folder).items():
        assert torch.equal(model.get_parameter(path), expected)
    asked = load(folder, quantization_config=transformers.Mxfp4Config(dequantize=True))
    assert all(quantized_weight(module, name) is None for module in experts_of(asked) for name in PARAMETERS)


@pytest.mark.parametrize("name", ["gpt-oss", "fp8"])
def test_versions_that_decode_experts_are_warned_of(name, tmp_path, monkeypatch):
    folder = FILES[name](tmp_path)
    for method, quantizer in (("mxfp4", Mxfp4HfQuantizer), ("fp8", FineGrainedFP8HfQuantizer)):
        monkeypatch.setitem(auto.AUTO_QUANTIZER_MAPPING, method, quantizer)
    _warnings.warned.clear()
    with pytest.warns(UserWarning, match="smlora: this version of Transformers decodes the experts .*; from 5.21 on smlora"):
        model = load(folder)
    for path, expected in stored_values(folder).items():
        assert torch.equal(model.get_parameter(path), expected)


def test_a_checkpoint_whose_quantisation_is_hidden_is_warned_of(tmp_path):
    folder = FILES["gpt-oss"](tmp_path)
    _warnings.warned.clear()
    with pytest.warns(UserWarning, match="smlora: quantization_config=None hides .* leave it out"):
        transformers.AutoModelForCausalLM.from_pretrained(folder, experts_implementation="smlora", quantization_config=None)


@reads_experts
def test_modelopt_needs_smlora(tmp_path):
    with pytest.raises(ValueError, match='experts_implementation: expected "smlora"'):
        load(modelopt(tmp_path), experts_implementation="eager")


@reads_experts
def test_another_algorithm_of_modelopt_is_refused(tmp_path):
    folder = modelopt(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["quant_algo"] = "W4A8_AWQ"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="quantization_config.quant_algo: expected NVFP4, got 'W4A8_AWQ'"):
        load(folder)


@reads_experts
def test_zero_points_are_refused(tmp_path, caplog, monkeypatch):
    pytest.importorskip("compressed_tensors", reason="Transformers needs it for these files")
    folder = FILES["int4 in groups of 32"](tmp_path)
    stored = load_file(folder / "model.safetensors")
    for name in [name for name in stored if name.endswith("weight_packed")]:
        stored[name.replace("packed", "zero_point")] = torch.zeros(1, dtype=torch.int32)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with pytest.raises(RuntimeError, match="conversion of the weights"):
        load(folder)
    assert "weight_zero_point: expected None" in caplog.text


# ---- with the libraries themselves ------------------------------------------------------------------------------------


def test_bitsandbytes_parametrisation(tmp_path):
    parametrize = pytest.importorskip("bitsandbytes.nn.parametrize", reason="needs bitsandbytes")
    model = plain()
    for module in experts_of(model):
        for name in PARAMETERS:
            parametrize.replace_parameter_4bit(module, name, compress_statistics=True, quant_type="nf4")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compare(adapted(decoded(model)), adapted(model), tokens())
    with pytest.raises(NotImplementedError, match="is quantised, which Transformers cannot save"):
        model.save_pretrained(tmp_path)
    left = {name.replace(".base_layer", ""): tensor for name, tensor in model.state_dict().items() if "lora" not in name}
    assert left.keys() == state.keys() and all(torch.equal(left[name], state[name]) for name in state)


@pytest.mark.parametrize("kind", ["mx", "nvfp4"])
def test_torchao_tensors(kind):
    pytest.importorskip("torchao", reason="needs torchao")
    model = plain(hidden_size=64, moe_intermediate_size=64)
    for module in experts_of(model):
        for name in PARAMETERS:
            values = module._parameters[name].detach().bfloat16()
            if kind == "mx":
                from torchao.prototype.mx_formats.mx_tensor import MXTensor

                tensor = MXTensor.to_mx(values, torch.float8_e4m3fn, 32)
            else:
                from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

                tensor = NVFP4Tensor.to_nvfp4(values, is_swizzled_scales=False)
            module._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
    compare(adapted(decoded(model)), adapted(model), tokens())


@pytest.mark.parametrize("name", REFUSED)
def test_torchao_tensors_that_smlora_has_not_are_not_taken_for_plain_ones(name):
    model, tensor = plain(hidden_size=128, moe_intermediate_size=64, num_experts=3), getattr(Torchao(), name)()
    for module in experts_of(model):
        assert module.down_proj.shape == tensor.shape
        module._parameters["down_proj"] = torch.nn.Parameter(tensor, requires_grad=False)
        with pytest.raises(ValueError, match=REFUSED[name]):
            quantized_weight(module, "down_proj")
    with pytest.raises(ValueError, match=REFUSED[name]):
        adapted(model)
