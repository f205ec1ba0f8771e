"""Small checkpoints with the tensors and the config.json of those that are published with quantised experts, made by
smlora.quantize, matrix by matrix, as a producer does it."""

import json

import smlora
import torch
from quantised_models import plain
from safetensors.torch import load_file, save_file

KEPT = ["lm_head", "re:.*self_attn.*", "re:.*mlp.gate$"]


def write(folder, model, change, quantization):
    """A checkpoint of `model` in which change(name, matrix), of the name of an expert's matrix or of all experts', gives the
    tensors that are stored in its place, by their suffixes."""
    model.save_pretrained(folder)
    stored = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if ".experts." in name and "proj" in name and "bias" not in name:
            stored |= {name.removesuffix("weight") + suffix: value.contiguous() for suffix, value in change(tensor).items()}
        else:
            stored[name] = tensor
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    return folder


def _one(matrix, encoding, **options):
    """The tensors of the weight of a single matrix."""
    weight = smlora.quantize(matrix[None], encoding, **options)
    return {name: tensor[0] if tensor.dim() > 1 else tensor for name, tensor in weight.tensors().items()}


def gpt_oss(folder, **options):
    def change(values):
        weight = smlora.quantize(values.transpose(1, 2).contiguous(), "mxfp4")
        return {"_blocks": weight.codes.unflatten(2, (-1, 16)), "_scales": weight.scales.view(torch.uint8)}

    return write(folder, plain("gpt_oss", **options), change, {"quant_method": "mxfp4"})


def fp8(folder, encoding="fp8", block=(128, 128), scale_type=torch.float32, scale="weight_scale_inv", scale_fmt=None,
        powers_of_two=False, **options):
    def change(matrix):
        side = dict(block=block[0] if block else max(matrix.shape)) if encoding == "fp8" else {}
        fields = _one(matrix, encoding, **side)
        codes = fields["codes"].view(torch.int8) if encoding == "mxfp4" else fields["codes"]
        scales = fields["scales"].to(scale_type) if encoding == "fp8" else fields["scales"].view(scale_type)
        scales = torch.exp2(scales.log2().ceil()) if powers_of_two else scales
        scales = scales if block else scales.view(())
        return {"weight": codes, scale: scales}

    return write(folder, plain(**options), change, {
        "quant_method": "mxfp8" if encoding == "mxfp8" else "fp8", "activation_scheme": "dynamic",
        "weight_block_size": block and list(block), "scale_fmt": scale_fmt or ("float" if encoding == "fp8" else "ue8m0"),
        "expert_dtype": "fp4" if encoding == "mxfp4" else "fp8",
        "modules_to_not_convert": [
            "lm_head", *(f"model.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn", "mlp.gate"))
        ],
    })


def _compressed(folder, form, args, change, options):
    weights = {"symmetric": True, "dynamic": False, **args}
    return write(folder, plain(**options), change, {
        "quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed", "ignore": KEPT,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "format": form}},
    })


def nvfp4_compressed(folder, **options):
    def change(matrix):
        fields = _one(matrix, "nvfp4")
        return {"weight_packed": fields["codes"], "weight_scale": fields["scales"],
                "weight_global_scale": 1 / fields["global_scales"].view(1)}

    args = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    return _compressed(folder, "nvfp4-pack-quantized", args, change, options)


def int4(folder, group=32, **options):
    def change(matrix):
        fields = _one(matrix.bfloat16(), "int4", block=group)
        return {"weight_packed": fields["codes"].view(torch.int32), "weight_scale": fields["scales"],
                "weight_shape": torch.tensor(matrix.shape)}

    args = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group}
    return _compressed(folder, "pack-quantized", args, change, options)


def modelopt(folder, **options):
    def change(matrix):
        fields = _one(matrix, "nvfp4")
        return {"weight": fields["codes"], "weight_scale": fields["scales"], "weight_scale_2": fields["global_scales"].view(()),
                "input_scale": torch.tensor(1e-3)}

    return write(folder, plain(**options), change, {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]})


FILES = {
    "gpt-oss": gpt_oss,
    "fp8": fp8,
    "fp8, bf16 scales": lambda folder: fp8(folder, scale_type=torch.bfloat16),
    "fp8, fp32 scales that were rounded": lambda folder: fp8(folder, scale_fmt="ue8m0", powers_of_two=True),
    "fp8 in blocks of 64, ragged": lambda folder: fp8(folder, block=(64, 64)),
    "fp8, two half blocks": lambda folder: fp8(folder, moe_intermediate_size=64),
    "fp8, one scale": lambda folder: fp8(folder, block=None),
    "mxfp8": lambda folder: fp8(folder, "mxfp8", (1, 32), torch.uint8),
    "DeepSeek-V4's fp4": lambda folder: fp8(folder, "mxfp4", scale_type=torch.float8_e8m0fnu, scale="scale"),
    "NVFP4 of compressed-tensors": nvfp4_compressed,
    "int4 in groups of 32": int4,
    "NVFP4 of modelopt": modelopt,
}
