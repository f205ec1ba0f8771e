"""Small models whose experts are quantised in each of the ways in which models keep them, made by smlora.quantize: no other
library is needed, and what it would decode fails instead."""

import inspect
import types

import smlora
import torch
from models import build
from smlora.transformers import quantize_experts
from smlora.transformers._weights import PARAMETERS

SIZES = {
    "qwen3_moe": dict(hidden_size=64, moe_intermediate_size=96),
    "gpt_oss": dict(hidden_size=64, intermediate_size=96),
}


def plain(model="qwen3_moe", **options):
    return build(model, "smlora", **(SIZES[model] | options))


def experts_of(model):
    return [module for module in model.modules() if hasattr(module, "is_transposed")]


def _for_each(model, change):
    for module in experts_of(model):
        for name in PARAMETERS:
            change(module, name, module._parameters[name].detach())
    return model


# ---- bitsandbytes -----------------------------------------------------------------------------------------------------


def state_of(weight, shape):
    """What bitsandbytes' QuantState holds."""
    nested = weight.outer_scales is not None
    inner = types.SimpleNamespace(absmax=weight.outer_scales, code=weight.outer_table, blocksize=weight.outer_block)
    return types.SimpleNamespace(
        absmax=weight.scales, shape=torch.Size(shape), code=weight.table, blocksize=weight.block, quant_type=weight.encoding,
        dtype=torch.float32, nested=nested, offset=weight.outer_offset.view(()) if nested else None,
        state2=inner if nested else None,
    )


class Decoding(torch.nn.Module):
    """A parametrisation like that of bitsandbytes, which may not be used."""

    def __init__(self, **fields):
        super().__init__()
        vars(self).update(fields)

    def forward(self, original):
        raise AssertionError("a parametrised attribute was read")


def parametrised(encoding="nf4", model="qwen3_moe", **options):
    """axolotl's quantize_moe_experts, in 4 and in 8 bits."""
    quantisation = {name: options.pop(name) for name in ("double", "block") if name in options}

    def change(module, name, values):
        weight = smlora.quantize(values, encoding, **quantisation)
        if encoding == "int8":
            codes, fields = weight.codes, dict(row_stats=weight.scales.view(-1))
        else:
            codes, fields = weight.codes.view(-1, 1), dict(quant_state=state_of(weight, values.shape))
        module._parameters[name] = torch.nn.Parameter(codes, requires_grad=False)
        torch.nn.utils.parametrize.register_parametrization(module, name, Decoding(**fields), unsafe=True)

    return _for_each(plain(model, **options), change)


class Params4bit(torch.nn.Parameter):
    """Like that of bitsandbytes."""

    def __new__(cls, codes, quant_state, original_shape=None):
        self = torch.Tensor._make_subclass(cls, codes, False)
        self.quant_state = quant_state
        if original_shape is not None:
            self._original_shape = original_shape
        return self

    def __deepcopy__(self, memo):
        return type(self)(self.data.clone(), self.quant_state, getattr(self, "_original_shape", None))


def params4bit(**options):
    """Unsloth's, quantised as one matrix."""

    def change(module, name, values):
        weight = smlora.quantize(values, "nf4")
        state = state_of(weight, values.flatten(0, 1).shape)
        module._parameters[name] = Params4bit(weight.codes.view(-1, 1), state, values.shape)

    return _for_each(plain(**options), change)


class Linear4bit(torch.nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, torch.nn.Parameter(bias, requires_grad=False)


def linears4bit(**options):
    """Unsloth's gpt-oss: a list of linear layers for each projection."""

    def change(module, name, values):
        linears = []
        for matrix, bias in zip(values, getattr(module, f"{name}_bias").detach()):
            weight = smlora.quantize(matrix.T[None].contiguous(), "nf4", double=True)
            linears.append(Linear4bit(Params4bit(weight.codes.view(-1, 1), state_of(weight, matrix.T.shape)), bias))
        del module._parameters[name], module._parameters[f"{name}_bias"]
        module.add_module(f"{name}s", torch.nn.ModuleList(linears))

    return _for_each(plain("gpt_oss", **options), change)


# ---- files that Transformers keeps packed -----------------------------------------------------------------------------


def blocks(**options):
    """gpt-oss as it is stored: blocks and scales beside each other, [E, out, in]."""

    def change(module, name, values):
        weight = smlora.quantize(values.transpose(1, 2).contiguous(), "mxfp4")
        del module._parameters[name]
        packed = {"blocks": weight.codes.view(*weight.codes.shape[:2], -1, 16), "scales": weight.scales.view(torch.uint8)}
        for kind, tensor in packed.items():
            module.register_parameter(f"{name}_{kind}", torch.nn.Parameter(tensor, requires_grad=False))

    return _for_each(plain("gpt_oss", **options), change)


def _fp8_experts(config, expert_dtype, **options):
    from transformers.integrations.finegrained_fp8 import ALL_FP8_EXPERTS_FUNCTIONS, FP8Experts
    from transformers.integrations.moe import use_experts_implementation

    if "expert_dtype" in inspect.signature(FP8Experts).parameters:
        options["expert_dtype"] = expert_dtype
    else:  # older versions look for it there
        config.expert_dtype = expert_dtype
    kind = type("FP8Experts", (FP8Experts,), {})
    kind = use_experts_implementation(kind, experts_interface=ALL_FP8_EXPERTS_FUNCTIONS)
    return kind(config, activation_scheme="dynamic", **options)


def fp8_experts(encoding="fp8", block=(32, 32), scale_type=torch.float32, **options):
    """Transformers' module, as it is after loading: everything says that it is to be trained."""
    model = plain(**options)
    for layer in model.model.layers:
        before = layer.mlp.experts
        expert_dtype, scale_fmt = ("fp4" if encoding == "mxfp4" else "fp8"), ("float" if encoding == "fp8" else "ue8m0")
        after = _fp8_experts(model.config, expert_dtype, block_size=block, scale_fmt=scale_fmt)
        for name in PARAMETERS:
            values = getattr(before, name).detach()
            parts = 2 if name == "gate_up_proj" and encoding == "fp8" else 1
            side = dict(block=max(values.shape[1:]) if block is None else block[0]) if encoding == "fp8" else {}
            weight = smlora.quantize(values, encoding, parts=parts, **side)
            codes = weight.codes.view(torch.int8) if encoding == "mxfp4" else weight.codes
            scales = weight.scales.to(scale_type) if encoding == "fp8" else weight.scales
            assert getattr(after, name).shape == codes.shape and getattr(after, f"{name}_scale_inv").shape == scales.shape
            setattr(after, name, torch.nn.Parameter(codes, requires_grad=codes.is_floating_point()))
            setattr(after, f"{name}_scale_inv", torch.nn.Parameter(scales, requires_grad=scales.dtype != torch.float8_e8m0fnu))
        layer.mlp.experts = after
    return model


def own(encoding, model="qwen3_moe", **options):
    return quantize_experts(plain(model, **options), encoding)


KINDS = {
    "nf4 parametrised": parametrised,
    "nf4 doubly quantised, parametrised": lambda **options: parametrised(double=True, **options),
    "fp4 in blocks of 128, parametrised": lambda **options: parametrised("fp4", block=128, **options),
    "nf4 parametrised [E, in, out]": lambda **options: parametrised(model="gpt_oss", **options),
    "int8 parametrised": lambda **options: parametrised("int8", **options),
    "Params4bit": params4bit,
    "list of Linear4bit": linears4bit,
    "gpt-oss blocks": blocks,
    "FP8Experts": fp8_experts,
    "FP8Experts, bf16 scales": lambda **options: fp8_experts(scale_type=torch.bfloat16, **options),
    "FP8Experts, ragged": lambda **options: fp8_experts(block=(128, 128), **options),
    "FP8Experts, one scale": lambda **options: fp8_experts(block=None, **options),
    "FP8Experts, fp4": lambda **options: fp8_experts("mxfp4", **options),
    "FP8Experts, mxfp8": lambda **options: fp8_experts("mxfp8", block=(1, 32), **options),
    **{f"smlora's {encoding}": lambda encoding=encoding, **options: own(encoding, **options)
       for encoding in ("nf4", "fp4", "mxfp4", "nvfp4", "fp8", "mxfp8", "int8", "int4")},
    "smlora's nf4 [E, in, out]": lambda **options: own("nf4", "gpt_oss", **options),
    "smlora's mxfp4 [E, in, out]": lambda **options: own("mxfp4", "gpt_oss", **options),
}
