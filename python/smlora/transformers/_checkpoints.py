"""Experts of checkpoints that are quantised already, read as they lie in the files."""

import inspect

import torch
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizer_compressed_tensors import CompressedTensorsHfQuantizer
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer
from transformers.quantizers.quantizer_mxfp4 import Mxfp4HfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationConfigMixin

from smlora.quantized import from_compressed_tensors, from_fp8, from_mxfp4, from_mxfp8, from_nvfp4
from smlora.transformers._conversion import hold
from smlora.transformers._names import is_ours
from smlora.transformers._weights import PARAMETERS

# ---- a weight of several tensors ---------------------------------------------------------------------------------------
#
# Each takes, by its name in the file, what belongs to a weight: lists with a tensor, or with a list of parts such as gate and
# up, for each expert.


def _compressed_tensors(config, weight_packed, weight_scale, **rest):
    return from_compressed_tensors(weight_packed, weight_scale, **rest)


def _modelopt(config, weight, weight_scale, weight_scale_2, input_scale=None):
    return from_nvfp4(weight, weight_scale, weight_scale_2)


def _first(nested):
    return _first(nested[0]) if isinstance(nested, list) else nested


def _matrices(nested):
    """Numbers as [1, 1]."""
    return [_matrices(entry) for entry in nested] if isinstance(nested, list) else nested.reshape(1, 1)


def _fp8(config, weight, weight_scale_inv, activation_scale=None):
    if _first(weight).dtype == torch.int8:
        return from_mxfp4(weight, weight_scale_inv)
    if list(config.weight_block_size or ()) == [1, 32]:
        return from_mxfp8(weight, weight_scale_inv)
    if config.weight_block_size is None:
        return from_fp8(weight, _matrices(weight_scale_inv), max(_first(weight).shape))
    return from_fp8(weight, weight_scale_inv, config.weight_block_size)


_READERS = {
    "compressed-tensors": (_compressed_tensors, ("weight_packed", "weight_scale", "weight_global_scale", "weight_shape",
                                                 "weight_zero_point", "weight_g_idx")),
    "modelopt": (_modelopt, ("weight", "weight_scale", "weight_scale_2", "input_scale")),
    "fp8": (_fp8, ("weight", "weight_scale_inv", "activation_scale")),
}
"""{method: (what makes the weight, the names of its tensors)}"""


class _ReadExperts(ConversionOps):
    """Tensors of all experts as one QuantizedWeight, in the place of a parameter of the model."""

    def __init__(self, hf_quantizer, method):
        # Transformers leaves the types of what an operation of its quantisers reads as they are.
        self.hf_quantizer = hf_quantizer
        self.make, self.names = _READERS[method]

    def convert(self, input_dict, *, source_patterns, model, full_layer_name, missing_keys, **_):
        found = {}
        for name in self.names:
            patterns = [pattern for pattern in source_patterns if pattern.endswith(f".{name}") and pattern in input_dict]
            parts = [input_dict[pattern] for pattern in patterns]
            if parts:
                found[name] = parts[0] if len(parts) == 1 else [list(expert) for expert in zip(*parts, strict=True)]
        module, name = get_module_from_name(model, full_layer_name)
        hold(module, name, self.make(self.hf_quantizer.quantization_config, **found))
        missing_keys.discard(full_layer_name)
        return {}


def _stems(converter):
    """Where a converter finds the weights of experts that it stacks, or None."""
    if not isinstance(converter, WeightConverter) or len(converter.target_patterns) != 1:
        return None
    stacks = {type(operation).__name__ for operation in converter.operations} & {"MergeModulelist"}
    if not stacks or converter.target_patterns[0].rpartition(".")[2] not in PARAMETERS:
        return None
    sources = converter._original_source_patterns
    return list(dict.fromkeys(source.rpartition(".")[0] for source in sources))


def _without(conversions, operation):
    """Those that Transformers can reverse: decoded weights are saved as they are."""
    return [used for used in conversions if not any(isinstance(step, operation) for step in getattr(used, "operations", ()))]


class _ReadsExperts:
    """Before the class of a quantiser: experts are read as they are, if smlora computes them."""

    method = None

    def update_weight_conversions(self, weight_conversions, model):
        updated = super().update_weight_conversions(weight_conversions, model)
        if not self.reads_experts(model):
            return updated
        _, names = _READERS[self.method]
        plain, readers = {tuple(converter.target_patterns): converter for converter in weight_conversions}, []
        self._replaced = {}
        for converter in updated:
            stems = _stems(converter)
            if stems is not None:
                sources = [f"{stem}.{name}" for name in names for stem in stems]
                converter = converter.copy(sources, converter._original_target_patterns,
                                           operations=[_ReadExperts(self, self.method)])
                self._replaced[id(converter)] = plain[tuple(converter.target_patterns)]
            readers.append(converter)
        return readers

    def _process_model_after_weight_loading(self, model, **named):
        # As Transformers saves a model by the reverse of what loaded it: decoded experts are plain ones.
        if self.reads_experts(model):
            model._weight_conversions = [self._replaced.get(id(used), used) for used in model._weight_conversions]
        return super()._process_model_after_weight_loading(model, **named)

    def reads_experts(self, model):
        return self.pre_quantized and is_ours(model.config)


class _CompressedTensors(_ReadsExperts, CompressedTensorsHfQuantizer):
    method = "compressed-tensors"


class _Fp8(_ReadsExperts, FineGrainedFP8HfQuantizer):
    """Where Transformers keeps FP8, its own FP8Experts hold the experts; else the other layers alone are decoded."""

    method = "fp8"
    _cannot_keep = False

    def validate_environment(self, *arguments, **named):
        asked = self.quantization_config.dequantize
        super().validate_environment(*arguments, **named)
        self._cannot_keep = self.quantization_config.dequantize and not asked

    def reads_experts(self, model):
        return super().reads_experts(model) and self._cannot_keep

    def _process_model_after_weight_loading(self, model, **named):
        # Its reverse would encode the other layers, of which the saved config.json says nothing.
        if self.reads_experts(model):
            model._weight_conversions = _without(model._weight_conversions, Fp8Dequantize)
        return super()._process_model_after_weight_loading(model, **named)


# ---- gpt-oss ------------------------------------------------------------------------------------------------------------


class _KeepBlocks(ConversionOps):
    """Blocks and scales as parameters of the experts, under their names in the file."""

    def __init__(self, hf_quantizer):
        self.hf_quantizer = hf_quantizer

    def convert(self, input_dict, *, model, full_layer_name, missing_keys, **_):
        module, name = get_module_from_name(model, full_layer_name)
        del module._parameters[name]
        for stored, tensors in input_dict.items():
            tensor = tensors[0] if isinstance(tensors, list) else tensors
            module.register_parameter(stored, torch.nn.Parameter(tensor, requires_grad=False))
        module._is_hf_initialized = True
        missing_keys.discard(full_layer_name)
        return {}


class _Mxfp4(Mxfp4HfQuantizer):
    """Transformers' own needs a kernel from the hub, without a backward; without that kernel it decodes."""

    _keeps = False

    def validate_environment(self, *arguments, **named):
        """Postponed until it is known who computes the experts."""
        self._environment = arguments, named

    def _process_model_before_weight_loading(self, model, **named):
        self._keeps = self.pre_quantized and not self.quantization_config.dequantize and is_ours(model.config)
        if not self._keeps:
            arguments, environment = self._environment
            super().validate_environment(*arguments, **environment)
            super()._process_model_before_weight_loading(model, **named)

    def get_weight_conversions(self):
        if not self._keeps:
            return super().get_weight_conversions()
        return [WeightConverter(names, name, [_KeepBlocks(self)]) for name, names in self.serialized_names.items()]

    def _process_model_after_weight_loading(self, model, **named):
        if self._keeps:
            model._weight_conversions = _without(model._weight_conversions, _KeepBlocks)
        return super()._process_model_after_weight_loading(model, **named)

    def get_state_dict_and_metadata(self, model):
        return (None, {}) if self._keeps else super().get_state_dict_and_metadata(model)

    @property
    def experts_alone(self):
        return self._keeps

    @property
    def is_trainable(self):
        return self._keeps or super().is_trainable


# ---- modelopt -----------------------------------------------------------------------------------------------------------


class _ModeloptConfig(QuantizationConfigMixin):
    def __init__(self, quant_algo=None, **rest):
        self.quant_method, self.quant_algo = "modelopt", quant_algo
        if quant_algo != "NVFP4":
            raise ValueError(f"quantization_config.quant_algo: expected NVFP4, got {quant_algo!r}")


class _DecodeLinear(ConversionOps):
    """A layer that is no expert, decoded to the type of its parameter."""

    def __init__(self, hf_quantizer):
        self.hf_quantizer = hf_quantizer

    def convert(self, input_dict, *, model, full_layer_name, **_):
        found = {name: tensors[0] if isinstance(tensors, list) else tensors for name, tensors in input_dict.items()}
        dtype = model.get_parameter_or_buffer(full_layer_name).dtype
        if "weight_scale_2" not in found:
            return {full_layer_name: found["weight"].to(dtype)}
        weight = _modelopt(None, [found["weight"]], [found["weight_scale"]], found["weight_scale_2"])
        return {full_layer_name: weight.dequantize(dtype)[0]}


class _Modelopt(_ReadsExperts, HfQuantizer):
    method = "modelopt"
    is_trainable = experts_alone = True

    def is_serializable(self):
        return True

    def _process_model_before_weight_loading(self, model, **named):
        if not is_ours(model.config):
            raise ValueError(
                'experts_implementation: expected "smlora", which alone computes experts that modelopt quantised, got '
                f"{model.config._experts_implementation!r}"
            )
        return model

    def _process_model_after_weight_loading(self, model, **named):
        super()._process_model_after_weight_loading(model, **named)
        model._weight_conversions = _without(model._weight_conversions, _DecodeLinear)
        return model

    def get_weight_conversions(self):
        return [WeightConverter(list(_READERS["modelopt"][1]), "weight", [_DecodeLinear(self)])]


def register_checkpoints():
    # Transformers 5.21
    update = getattr(HfQuantizer, "update_weight_conversions", None)
    if update is None or "model" not in inspect.signature(update).parameters:
        return
    auto.AUTO_QUANTIZER_MAPPING.update({
        "compressed-tensors": _CompressedTensors, "fp8": _Fp8, "mxfp8": _Fp8, "mxfp4": _Mxfp4, "modelopt": _Modelopt,
    })
    auto.AUTO_QUANTIZATION_CONFIG_MAPPING["modelopt"] = _ModeloptConfig
