"""Quantisation of experts while Transformers loads a model, one tensor after the other."""

import functools

import transformers.modeling_utils
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationConfigMixin

from smlora.transformers._conversion import (
    bytes_of_value,
    hold,
    is_plain,
    plain_experts,
    quantize_experts,
    quantized,
    reason_not_to_save,
)
from smlora.transformers._names import NAME, is_ours
from smlora.transformers._warnings import warn_once
from smlora.transformers._weights import is_quantized

chosen = None
"""The Quantisation of register(quantize_experts=..)."""


def _has_experts(config):
    counts = ("num_experts", "num_local_experts", "n_routed_experts")
    return any(getattr(config.get_text_config(), name, None) for name in counts)


def _is_plain(model, path):
    return is_plain(*get_module_from_name(model, path))


class _QuantizeExperts(ConversionOps):
    """Of values that were read, converted and moved to their device: the last step before they would become parameters."""

    def __init__(self, how, otherwise):
        self.how, self.otherwise = how, otherwise

    def convert(self, input_dict, *, model, full_layer_name, missing_keys, **named):
        if not _is_plain(model, full_layer_name):
            return self.otherwise.convert(
                input_dict, model=model, full_layer_name=full_layer_name, missing_keys=missing_keys, **named
            )
        (values,) = input_dict.values()
        module, name = get_module_from_name(model, full_layer_name)
        values = values[0] if isinstance(values, list) else values
        hold(module, name, quantized(module, name, values, self.how))
        missing_keys.discard(full_layer_name)
        return {}


class _WithExperts:
    """Before the class of a quantiser: weights of experts are quantised, too."""

    def param_needs_quantization(self, model, param_name, **named):
        if self.how is not None and _is_plain(model, param_name):
            return True
        return super().param_needs_quantization(model, param_name, **named)

    def param_element_size(self, model, param_name, param):
        if self.how is not None and _is_plain(model, param_name):
            return bytes_of_value(*get_module_from_name(model, param_name), self.how)
        return super().param_element_size(model, param_name, param)

    def get_quantize_ops(self):
        return _QuantizeExperts(self.how, super().get_quantize_ops())

    def _process_model_after_weight_loading(self, model, **named):
        """What is left is in a file whose other layers were quantised before, or was not asked for."""
        left = next(plain_experts(model), None)
        if self.how is not None:
            quantize_experts(model, **self.how._asdict())
        elif left is not None:
            module, name = left
            method = getattr(self.quantization_config.quant_method, "value", self.quantization_config.quant_method)
            warn_once(
                f"the experts of {type(model).__name__} are in {module._parameters[name].dtype}, as {method} quantises linear "
                'layers alone; smlora.transformers.register(quantize_experts="nf4") and then '
                f'from_pretrained(.., experts_implementation="{NAME}") quantise them, too'
            )
        return super()._process_model_after_weight_loading(model, **named)


class _ExpertsConfig(QuantizationConfigMixin):
    def __init__(self):
        self.quant_method = "smlora"


class _Nothing(HfQuantizer):
    """For a model that is not quantised otherwise."""

    is_trainable = experts_alone = True

    def is_serializable(self):
        return True

    def get_quantize_ops(self):
        return None

    def postprocess_model(self, model, **named):
        # config.json says nothing of it: what is saved of such a model are adapters, which belong to the model as it was.
        self._process_model_after_weight_loading(model, **named)
        if not any(is_quantized(module) for module in model.modules()):
            self.remove_quantization_config(model)
        return model


def _with_experts(quantizer, how):
    """The same quantiser, of a class that quantises experts, too."""
    kind = type(quantizer)
    kind = type(kind.__name__, (_WithExperts, kind), {"how": how})
    extended = kind.__new__(kind)
    vars(extended).update(vars(quantizer))
    return extended


def _decodes(quantizer):
    """Whether it is Transformers' own, of a method that smlora has where it can."""
    methods = ("compressed-tensors", "fp8", "mxfp8", "mxfp4")
    return quantizer.quantization_config.quant_method in methods and type(quantizer).__module__.startswith("transformers.")


def _get_hf_quantizer(original):
    @functools.wraps(original)
    def get_hf_quantizer(config, *arguments, **named):
        quantizer, config, device_map = original(config, *arguments, **named)
        how = chosen if is_ours(config) else None
        if chosen is not None and how is None and _has_experts(config):
            warn_once(
                f'register(quantize_experts="{chosen.encoding}") quantises the experts of models that are loaded with '
                f'experts_implementation="{NAME}"; this one is not, and its experts stay as they are'
            )
        if quantizer is None:
            # config.json had one, or there would be no attribute.
            if is_ours(config) and getattr(config, "quantization_config", "") is None:
                warn_once(
                    "quantization_config=None hides from Transformers that the checkpoint is quantised; leave it out, or "
                    "its experts are wrong"
                )
            if how is not None:
                quantizer = _with_experts(_Nothing(_ExpertsConfig(), pre_quantized=False), how)
        elif quantizer.quantization_config.quant_method == "bitsandbytes" or (how and not quantizer.pre_quantized):
            quantizer = _with_experts(quantizer, how)
        elif quantizer.pre_quantized and is_ours(config) and _decodes(quantizer):
            warn_once(
                "this version of Transformers decodes the experts of quantised checkpoints; from 5.21 on smlora reads them "
                "as they are"
            )
        return quantizer, config, device_map

    get_hf_quantizer._smlora = True
    return get_hf_quantizer


def _save_pretrained(original):
    @functools.wraps(original)
    def save_pretrained(self, *arguments, **named):
        # Of a model with Transformers' own adapters only these are saved.
        reason = None if getattr(self, "_hf_peft_config_loaded", False) else reason_not_to_save(self)
        if reason is not None:
            raise NotImplementedError(reason)
        return original(self, *arguments, **named)

    save_pretrained._smlora = True
    return save_pretrained


def register_quantizers(how):
    global chosen
    chosen = how
    loading = transformers.modeling_utils
    if not getattr(loading.get_hf_quantizer, "_smlora", False):
        loading.get_hf_quantizer = _get_hf_quantizer(loading.get_hf_quantizer)
    if not getattr(loading.PreTrainedModel.save_pretrained, "_smlora", False):
        loading.PreTrainedModel.save_pretrained = _save_pretrained(loading.PreTrainedModel.save_pretrained)
