"""PEFT's adapters on the parameters of experts (target_parameters), inside the operation instead of added to the weights."""

import contextlib
import functools
from typing import NamedTuple, Optional

from smlora._linear import adapter_views
from smlora._mlp import Adapter
from smlora.transformers._experts import activation_or_none
from smlora.transformers._names import NAME, is_name_of_ours, is_ours
from smlora.transformers._parallel import Layout, is_spread, layout_of, whole
from smlora.transformers._patching import patch
from smlora.transformers._peft_on_ranks import register_peft_on_ranks
from smlora.transformers._warnings import warn_once
from smlora.transformers._weights import PARAMETERS, is_quantized, parameters_of, quantized_weight, stand_in


class Active(NamedTuple):
    """An adapter while PEFT's wrapper runs."""

    adapter: Adapter
    layout: Optional[Layout]


def _is_fused(module):
    """Whether smlora computes this module."""
    implementation = getattr(getattr(module, "config", None), "_experts_implementation", None)
    return is_name_of_ours(implementation) and activation_or_none(module) is not None


def adapter_of(wrapper, name):
    """Adapter `name` of PEFT's wrapper of one parameter, as views."""
    module = wrapper.get_base_layer()
    lora_A, lora_B = whole("lora_A", wrapper.lora_A[name].weight), whole("lora_B", wrapper.lora_B[name].weight)
    # PEFT swaps the two of parameters [E, out, in]; before 0.19.1 it swapped none, or those of the others.
    swapped = getattr(wrapper, "_did_swap_in_out_features", False) == module.is_transposed
    A, B = adapter_views(lora_A, lora_B, wrapper.num_experts, layout="peft_transposed" if swapped else "peft")
    return Adapter(A, B, wrapper.scaling[name])


def reason_to_materialise(wrapper, names):
    if not _is_fused(wrapper.get_base_layer()):
        return f'{type(wrapper.get_base_layer()).__name__} is not computed by experts_implementation="{NAME}"'
    if wrapper.parameter_name not in parameters_of(wrapper.get_base_layer()):
        return f"PEFT adapts {wrapper.parameter_name}, which smlora does not fuse"
    if len(names) > 1:
        return f"{len(names)} adapters are active at once on {wrapper.parameter_name}"
    rank = wrapper.r[names[0]]
    if rank > 256:
        return f"an adapter of rank {rank} on {wrapper.parameter_name}; the largest that is fused is 256"
    return None


def _quantized(wrapper):
    """The QuantizedWeight that PEFT wraps, or None."""
    module = wrapper.get_base_layer()
    return quantized_weight(module, wrapper.parameter_name) if wrapper.parameter_name in PARAMETERS else None


def _refuse(wrapper, reason, instead):
    weight = _quantized(wrapper)
    if weight is not None:
        raise NotImplementedError(f"{wrapper.parameter_name} is quantised ({weight.encoding}): {reason}; {instead}")


def _is_split(wrapper, name):
    """Whether the weight is spread over ranks and the adapter is not, or the reverse."""
    weight = wrapper.get_base_layer()._parameters.get(wrapper.parameter_name)
    return is_spread(weight) != is_spread(wrapper.lora_A[name].weight)


def _activate(original):
    @contextlib.contextmanager
    def activate(self, active_adapters):
        names = [name for name in active_adapters or [] if name in self.lora_A]
        reason = reason_to_materialise(self, names) if names else None
        if reason is not None:
            _refuse(self, f"{reason}, and PEFT cannot add an adapter to quantised weights",
                    "keep one adapter active and experts_implementation=\"smlora\", or decode the experts with "
                    "smlora.transformers.dequantize_experts(model)")
            if _is_split(self, names[0]):
                raise NotImplementedError(
                    f"{self.parameter_name} is spread over ranks: {reason}, and PEFT cannot add an adapter to such a weight; "
                    'keep one adapter active, with a rank of at most 256 and experts_implementation="smlora"'
                )
            if _is_fused(self.get_base_layer()):
                warn_once(f"{reason}; PEFT adds it to the weights in memory")
        if not names or reason is not None:
            with original(self, active_adapters):
                yield
            return
        module = self.get_base_layer()
        if not hasattr(module, "_smlora_adapters"):
            module._smlora_adapters = {}
        # Threads that share a model activate the same adapter, each for itself; appending and removing are atomic.
        active = module._smlora_adapters.setdefault(self.parameter_name, [])
        active.append(Active(adapter_of(self, names[0]), layout_of(module, self.parameter_name)))
        try:
            yield
        finally:
            active.pop()

    return activate


def _get_param(original):
    """PEFT asks it for shape, type and device alone, but where it adds an adapter to it."""

    @functools.wraps(original)
    def get_param(self):
        module = self.get_base_layer()
        parameter = stand_in(module, self.parameter_name) if self.parameter_name in PARAMETERS else None
        return original(self) if parameter is None else parameter

    return get_param


def _refuse_to_merge(wrapper):
    _refuse(wrapper, "merging would round the adapter away",
            "decode the experts first, with smlora.transformers.dequantize_experts(model), or keep the adapter")
    if any(_is_split(wrapper, name) for name in wrapper.lora_A):
        raise NotImplementedError(
            f"{wrapper.parameter_name} is spread over ranks, and PEFT cannot merge an adapter into such a weight; save the "
            "adapter with save_pretrained, and merge it in a process that loads the whole model"
        )


def _merge(original):
    @functools.wraps(original)
    def merge(self, *arguments, **named):
        _refuse_to_merge(self)
        return original(self, *arguments, **named)

    return merge


def _check_merge_allowed(original):
    """What PEFT asks before it merges layer by layer. Refused by a later layer, it would have merged the earlier ones."""

    @functools.wraps(original)
    def check(self):
        from peft.tuners.lora.layer import ParamWrapper

        original(self)
        for module in self.model.modules():
            if isinstance(module, ParamWrapper):
                _refuse_to_merge(module)

    return check


# ---- what PEFT sees of a model when it looks for its targets ----------------------------------------------------------


@contextlib.contextmanager
def _as_plain_parameters(model):
    """Quantised weights of experts are seen as parameters of their decoded shape, so that target_parameters match by suffix
    and no attribute is read that would decode one."""
    changed = []
    try:
        for module in list(model.modules()):
            if not is_quantized(module):
                continue
            changed.append((module, dict(module._parameters), dict(module._modules)))
            shown = {name: stand_in(module, name) for name in PARAMETERS}
            for name, parameter in shown.items():
                if parameter is not None:
                    module._modules.pop(name, None)
                    module._parameters[name] = parameter
            module._modules.pop("parametrizations", None)
        yield
    finally:
        for module, parameters, modules in changed:
            for held, before in ((module._parameters, parameters), (module._modules, modules)):
                held.clear()
                held.update(before)


def _warn_of_experts_without_a_choice(model):
    """Of a model that was loaded with experts_implementation="smlora" and does not ask for it."""
    from peft.tuners.lora.layer import ParamWrapper

    if not is_ours(getattr(model, "config", None)):
        return
    for module in model.modules():
        # Of a router's weight, which PEFT wraps too, there is one.
        if not isinstance(module, ParamWrapper) or module.num_experts == 1:
            continue
        experts = module.get_base_layer()
        if not hasattr(experts, "is_transposed"):
            warn_once(
                f"{type(experts).__name__} offers no experts_implementation; its own code computes it, and PEFT adds adapters "
                "to the weights in memory"
            )


def _inject_parameters(original):
    @functools.wraps(original)
    def inject(self, peft_config, model, *arguments, **named):
        with _as_plain_parameters(model):
            injected = original(self, peft_config, model, *arguments, **named)
        _warn_of_experts_without_a_choice(model)
        return injected

    return inject


# ---- registration -----------------------------------------------------------------------------------------------------


def register_peft():
    try:
        from peft.tuners.lora.layer import ParamWrapper
        from peft.tuners.tuners_utils import BaseTuner
    except ImportError:
        return
    if not hasattr(ParamWrapper, "_activate_lora"):
        warn_once("this version of PEFT activates adapters in an unknown way; it adds them to the weights in memory")
        return
    patch(ParamWrapper, "_activate_lora", _activate)
    patch(ParamWrapper, "get_param", _get_param)
    patch(ParamWrapper, "merge", _merge)
    patch(BaseTuner, "_check_merge_allowed", _check_merge_allowed)
    if hasattr(BaseTuner, "_inject_parameters"):
        patch(BaseTuner, "_inject_parameters", _inject_parameters)
    register_peft_on_ranks()
