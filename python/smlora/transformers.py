"""Hugging Face Transformers and PEFT on smlora.

    import smlora.transformers
    smlora.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, experts_implementation="smlora")
    model = get_peft_model(model, LoraConfig(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]))

The experts of such a model are one operation, `smlora.moe_lora_mlp`, with PEFT's adapters inside it: no expert's weight is
ever added to its adapter in memory. What cannot be served runs as it would have, with one warning that says why."""

import contextlib
import warnings

import torch

from smlora._activation import Activation, gated_activation
from smlora._library import Error
from smlora._linear import adapter_views
from smlora._mlp import Adapter, moe_lora_mlp
from smlora._prewarm import mlp_problems, prewarm
from smlora._routing import route

__all__ = ["register"]

NAME = "smlora"

_PARAMETERS = ("gate_up_proj", "down_proj")
_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_warned = set()


def _warn_once(reason):
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"smlora: {reason}", stacklevel=3)


# ---- what a module computes -------------------------------------------------------------------------------------------


def _candidates(module):
    """The activations that a module may have."""
    for interleaved in (False, True):
        for kind in ("swiglu", "geglu", "geglu_tanh", "reglu"):
            yield Activation(kind, interleaved)
        alpha, limit = getattr(module, "alpha", None), getattr(module, "limit", None)
        if isinstance(alpha, (int, float)) and isinstance(limit, (int, float)) and limit > 0:
            yield Activation("swiglu_clamped", interleaved, float(alpha), float(limit))


@torch.no_grad()
def _activation_of(module):
    """The Activation that the module's _apply_gate is, found out by trying it on numbers; None if no Activation
    gives the same."""
    # Ordinary values, and values beyond every clamp.
    spread = torch.linspace(-3, 3, 61, dtype=torch.float64)
    points = torch.cat([spread, spread * 40])
    gates, values = torch.meshgrid(points, points, indexing="ij")
    halves = torch.stack([gates.reshape(-1, 61), values.reshape(-1, 61)], 1).flatten(1)
    try:
        expected = module._apply_gate(halves)
    except Exception:  # whatever a model's own code may raise
        return None
    for candidate in _candidates(module):
        got = gated_activation(halves, candidate)
        # alpha and limit are kept in fp32.
        if got.shape == expected.shape and torch.allclose(got, expected.double(), rtol=1e-6, atol=1e-9):
            return candidate
    return None


def _reason_against(module):
    """Why smlora cannot compute this module's experts, whatever their activation is, or None."""
    name = type(module).__name__
    if not getattr(module, "has_gate", True):
        return f"{name} has no gate projection"
    if getattr(module, "has_post_expert_norm", False):
        return f"{name} normalises the output of each expert"
    for parameter in _PARAMETERS:
        weight = getattr(module, parameter, None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 3:
            return f"{name} has no parameter {parameter} [experts, .., ..]"
        if weight.dtype not in _DTYPES:
            return f"{name}.{parameter} is of {weight.dtype}; quantised weights are not supported"
    return None


@torch.compiler.disable
def _find_out(module):
    activation, reason = None, _reason_against(module)
    if reason is None:
        activation = _activation_of(module)
        if activation is None:
            reason = f"the activation of {type(module).__name__} is none that smlora has"
    if reason is not None:
        _warn_once(f"{reason}; its experts run in eager mode")
    module._smlora_activation = activation


def _activation_or_none(module):
    """The module's Activation, or None, with one warning, if it is not supported. The first call finds it out, which breaks
    the graph of a compiler."""
    if not hasattr(module, "_smlora_activation"):
        _find_out(module)
    return module._smlora_activation


# ---- the first step ---------------------------------------------------------------------------------------------------

_prewarmed = set()


def _compile_the_step(module, x, gates, top_k, adapters):
    """At the first training call on a GPU with about so many tokens: everything that a step needs, compiled at once instead
    of one kernel after the other, each when it is first wanted."""
    T = x.shape[0]
    module._smlora_prewarmed = T.bit_length()
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    adapted = [adapters.get(parameter) for parameter in _PARAMETERS]
    types = [adapter.lora_A.dtype for adapter in adapted if adapter is not None] or [dtype]
    problems = mlp_problems(
        _weight(module, "gate_up_proj"), _weight(module, "down_proj"), top_k, dtype,
        ranks=[0 if adapter is None else adapter.lora_A.shape[1] for adapter in adapted],
        adapter_dtype=types[0] if types[0] in (dtype, torch.float32) else dtype,
        gate_dtype=gates.dtype if gates.dtype in (dtype, torch.float32) else dtype,
        biases=(module.has_bias, module.has_bias),
    )
    key = (*problems, T.bit_length())
    if T == 0 or key in _prewarmed:
        return
    _prewarmed.add(key)
    try:
        prewarm(problems, [T])
    except (Error, ValueError, NotImplementedError):
        # A kernel that is wanted fails again where it is wanted, and is named there.
        pass


# ---- the experts ------------------------------------------------------------------------------------------------------


def _eager(module, *arguments):
    """The forward of the model's own code, below the decorator that chose ours."""
    return type(module).forward.__wrapped__(module, *arguments)


def _weight(module, parameter):
    """[E, in, out]"""
    weight = getattr(module, parameter)
    return weight if module.is_transposed else weight.transpose(1, 2)


def experts_forward(module, hidden_states, top_k_index, top_k_weights):
    """What Transformers calls for experts_implementation="smlora". hidden_states [.., K], top_k_index and top_k_weights
    [T, top_k]; an index outside the module's experts belongs to another rank."""
    activation = _activation_or_none(module)
    if activation is None:
        return _eager(module, hidden_states, top_k_index, top_k_weights)
    adapters = getattr(module, "_smlora_adapters", {})
    x = hidden_states.reshape(-1, hidden_states.shape[-1])
    gates = top_k_weights
    if gates.dtype not in (x.dtype, torch.float32):
        gates = gates.float()
    if (
        x.is_cuda
        and not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and getattr(module, "_smlora_prewarmed", None) != x.shape[0].bit_length()
    ):
        _compile_the_step(module, x, gates, top_k_index.shape[1], adapters)
    bias = module.has_bias
    out = moe_lora_mlp(
        x,
        _weight(module, "gate_up_proj"),
        _weight(module, "down_proj"),
        route(top_k_index, module.num_experts),
        gates,
        activation=activation,
        gate_up_lora=adapters.get("gate_up_proj"),
        down_lora=adapters.get("down_proj"),
        gate_up_bias=module.gate_up_proj_bias if bias else None,
        down_bias=module.down_proj_bias if bias else None,
    )
    return out.reshape(hidden_states.shape).to(hidden_states.dtype)


# ---- PEFT -------------------------------------------------------------------------------------------------------------


def _is_fused(module):
    """Whether smlora computes this module."""
    implementation = getattr(getattr(module, "config", None), "_experts_implementation", None)
    return implementation == NAME and _activation_or_none(module) is not None


def _adapter_of(wrapper, name):
    """Adapter `name` of PEFT's wrapper of one parameter, as views."""
    module = wrapper.get_base_layer()
    lora_A, lora_B = wrapper.lora_A[name].weight, wrapper.lora_B[name].weight
    # Parameters that are stored [E, out, in] were wrapped with the two swapped before PEFT 0.19.1.
    swapped = not module.is_transposed and not getattr(wrapper, "_did_swap_in_out_features", False)
    A, B = adapter_views(lora_A, lora_B, wrapper.num_experts, layout="peft_transposed" if swapped else "peft")
    dtype = getattr(module, wrapper.parameter_name).dtype
    if not (A.dtype == B.dtype and A.dtype in (dtype, torch.float32)):
        A, B = A.float(), B.float()
    return Adapter(A, B, wrapper.scaling[name])


def _reason_to_materialise(wrapper, names):
    if wrapper.parameter_name not in _PARAMETERS:
        return f"PEFT adapts {wrapper.parameter_name}, which smlora does not fuse"
    if len(names) > 1:
        return f"{len(names)} adapters are active at once on {wrapper.parameter_name}"
    rank = wrapper.r[names[0]]
    if rank > 256:
        return f"an adapter of rank {rank} on {wrapper.parameter_name}; the largest that is fused is 256"
    return None


def _patch_peft(wrapper_class):
    original = wrapper_class._activate_lora

    @contextlib.contextmanager
    def activate(self, active_adapters):
        names = [name for name in active_adapters or [] if name in self.lora_A]
        module = self.get_base_layer()
        if not names or not _is_fused(module):
            with original(self, active_adapters):
                yield
            return
        reason = _reason_to_materialise(self, names)
        if reason is not None:
            _warn_once(f"{reason}; PEFT adds it to the weights in memory")
            with original(self, active_adapters):
                yield
            return
        if not hasattr(module, "_smlora_adapters"):
            module._smlora_adapters = {}
        adapters = module._smlora_adapters
        adapters[self.parameter_name] = _adapter_of(self, names[0])
        try:
            yield
        finally:
            del adapters[self.parameter_name]

    activate._smlora = True
    wrapper_class._activate_lora = activate


def _register_peft():
    try:
        from peft.tuners.lora.layer import ParamWrapper
    except ImportError:
        return
    if not hasattr(ParamWrapper, "_activate_lora"):
        _warn_once("this version of PEFT activates adapters in an unknown way; it adds them to the weights in memory")
    elif not getattr(ParamWrapper._activate_lora, "_smlora", False):
        _patch_peft(ParamWrapper)


def register():
    """Adds experts_implementation="smlora" to Transformers (5.0 or later) and lets PEFT's adapters on `gate_up_proj` and
    `down_proj` (target_parameters) go through it, if PEFT is installed. Everything else of PEFT is as before: several
    adapters of which one is active, disable_adapter, merging, saving and loading. Safe to call again."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    _register_peft()
