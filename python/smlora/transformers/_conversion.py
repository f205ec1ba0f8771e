"""Quantised experts of plain ones, and the reverse."""

import functools
from typing import NamedTuple, Optional, TypeVar

import torch
from torch.nn.utils import parametrize

from smlora._arguments import check_choice
from smlora._without_gradients import without_gradients
from smlora.quantized import QuantizedParameters, quantize
from smlora.quantized._quantize import check_options
from smlora.transformers._experts import find_out_anew, reason_against
from smlora.transformers._parallel import is_spread
from smlora.transformers._warnings import warn_once
from smlora.transformers._weights import (
    PARAMETERS,
    PLAIN,
    forget,
    is_gated,
    is_marked_as_decoded,
    mark_as_decoded,
    parametrizations_of,
    quantized_weight,
)

ENCODINGS = ("nf4", "fp4", "mxfp4", "nvfp4", "fp8", "mxfp8", "int8", "int4")
Model = TypeVar("Model", bound=torch.nn.Module)


class Quantisation(NamedTuple):
    """What `smlora.quantize` is told, but for what the weight itself says."""

    encoding: str
    block: Optional[int] = None
    double: bool = False


def checked(name, encoding, block, double):
    """The Quantisation. `name`: what the caller calls the encoding."""
    check_choice(name, encoding, ENCODINGS)
    check_options(encoding, block, double)
    return Quantisation(encoding, block, double)


_OF_EXPERTS = ("compressed-tensors", "fp8", "mxfp8")
"""Methods of checkpoints whose experts Transformers would not read if they were plain."""


def _reason_to_stay_plain(module):
    return reason_against(module) if is_gated(module) else f"{type(module).__name__} has no gate projection"


def is_plain(module, name):
    """Whether it is a weight of experts that can be quantised: smlora alone computes these afterwards."""
    weight = module._parameters.get(name) if name in PARAMETERS and hasattr(module, "is_transposed") else None
    return weight is not None and weight.dim() == 3 and weight.dtype in PLAIN and _reason_to_stay_plain(module) is None


def plain_experts(model):
    """(module, name) of every such weight."""
    for module in model.modules():
        for name in PARAMETERS:
            if is_plain(module, name):
                yield module, name


def warn_of_others(model):
    """Of experts that stay plain although they were to be quantised."""
    for module in model.modules():
        if hasattr(module, "is_transposed") and _reason_to_stay_plain(module) is not None:
            warn_once(f"{_reason_to_stay_plain(module)}; its experts are not quantised")


def _check_that_it_is_whole(module, name):
    parameter = module._parameters[name]
    if is_spread(parameter):
        raise NotImplementedError(
            f"{name}: expected all {parameter.shape[0]} experts on each rank, got a parameter that is spread over ranks, which "
            "smlora does not quantise; load the model without distributed_config, or without quantised experts"
        )


def hold(module, name, weight):
    """Puts a QuantizedWeight in the place of a plain parameter. Transformers shall not initialise what is there now."""
    _check_that_it_is_whole(module, name)
    shape = module._parameters[name].shape
    if weight.shape != shape:
        raise ValueError(f"{name}: expected a weight {list(shape)}, got {weight}")
    del module._parameters[name]
    find_out_anew(module)
    held = QuantizedParameters(weight)
    module.add_module(name, held)
    module._is_hf_initialized = held._is_hf_initialized = True


def _parts_of(module, name, encoding):
    """Of gate and up in one weight each has scales of its own, as in files that have them apart."""
    return 2 if name == "gate_up_proj" and encoding in ("fp8", "nvfp4") and not module.is_transposed else 1


def quantized(module, name, values, how):
    """The QuantizedWeight of `values`, those of the module's parameter `name`, by a Quantisation."""
    _check_that_it_is_whole(module, name)
    return quantize(values, how.encoding, block=how.block, double=how.double, parts=_parts_of(module, name, how.encoding))


@functools.cache
def _bytes_of_value(shape, dtype, parts, how):
    values = torch.empty(shape, dtype=dtype, device="meta")
    return quantize(values, how.encoding, block=how.block, double=how.double, parts=parts).nbytes / values.numel()


def bytes_of_value(module, name, how):
    """Of a value of the module's parameter `name` with its share of the scales, once it is quantised."""
    parameter = module._parameters[name]
    return _bytes_of_value(parameter.shape, parameter.dtype, _parts_of(module, name, how.encoding), how)


@without_gradients
def quantize_experts(model: Model, encoding: str, *, block: Optional[int] = None, double: bool = False) -> Model:
    """Quantises every plain weight of experts in `model` that smlora computes, one after the other, and returns the model: what
    register(quantize_experts=encoding) does while a model is loaded. encoding, block, double: as `smlora.quantize` takes them.
    Adapters come after it."""
    how = checked("encoding", encoding, block, double)
    for module, name in list(plain_experts(model)):
        hold(module, name, quantized(module, name, module._parameters[name].detach(), how))
    warn_of_others(model)
    return model


def _forget(module, name):
    """Removes what held the quantised weight."""
    forget(module, name)
    mark_as_decoded(module)
    find_out_anew(module)
    if parametrizations_of(module, name) is not None:
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    module._modules.pop(name, None)
    # FP8Experts keep their scales, which they take for parameters of theirs but do not use with plain weights.
    for stored in (name, f"{name}_blocks", f"{name}_scales"):
        module._parameters.pop(stored, None)
    linears = module._modules.pop(f"{name}s", None)
    if linears is not None and linears[0].bias is not None:
        bias = torch.stack([linear.bias for linear in linears])
        module.register_parameter(f"{name}_bias", torch.nn.Parameter(bias, requires_grad=False))


@without_gradients
def dequantize_experts(model: Model, dtype: torch.dtype = torch.bfloat16) -> Model:
    """Replaces every quantised weight of experts in `model` by a plain, frozen parameter of its values, one after the other,
    and returns the model. It is then as large as if it had never been quantised. PEFT's adapters stay, and can be merged
    afterwards with merge_and_unload."""
    for module in model.modules():
        for name in PARAMETERS:
            weight = quantized_weight(module, name)
            if weight is None:
                continue
            values = weight.dequantize(dtype).contiguous()
            _forget(module, name)
            module.register_parameter(name, torch.nn.Parameter(values, requires_grad=False))
    for module in model.modules():
        # What Transformers saves says no longer that experts are quantised.
        quantizer = vars(module).get("hf_quantizer")  # its own: wrappers such as PEFT's pass on what they do not have
        if getattr(quantizer, "experts_alone", False):
            quantizer.remove_quantization_config(module)
    return model


def reason_not_to_save(model):
    """Why what Transformers would write of the model could not be read again, or None."""
    config = getattr(getattr(model, "hf_quantizer", None), "quantization_config", None)
    method = getattr(config, "quant_method", None)
    method = getattr(method, "value", method)
    if method in _OF_EXPERTS and any(is_marked_as_decoded(module) for module in model.modules()):
        return (
            f"the experts were decoded, but config.json would say that they are stored as {method}; save the adapters alone, "
            "before they are merged"
        )
    for path, module in model.named_modules():
        for name in PARAMETERS:
            if quantized_weight(module, name) is not None and name not in module._parameters:
                return (
                    f"{path}.{name} is quantised, which Transformers cannot save; save the adapters alone, or decode the "
                    "experts first, with smlora.transformers.dequantize_experts(model)"
                )
    return None
