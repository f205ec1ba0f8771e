"""What an adapter of PEFT holds, module by module, whatever version of PEFT stored it."""

import math
import re
from typing import NamedTuple, Optional

import torch

from smlora._linear import adapter_views
from smlora.adapters._base_model import base_model
from smlora.transformers._weights import parameters_of

PREFIX = "base_model.model."
NOT_SWAPPED_SINCE = (0, 19, 1)
"""PEFT's version since which in and out of a parameter [E, out, in] are where the names say."""

_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<factor>[AB])(\.weight)?")


class Factors(NamedTuple):
    """An adapter of one weight: delta W = scaling B A."""

    A: torch.Tensor
    """[R, in], of experts [E, R, K]"""
    B: torch.Tensor
    """[out, R], of experts [E, N, R]"""
    scaling: float
    key: str
    """Of the module in the file, without the prefix."""
    embedding: bool = False


class Adapter(NamedTuple):
    """`experts`: {(path, parameter): Factors}. `others`: {path: Factors}."""

    config: dict
    base: object
    experts: dict
    others: dict


def _value(config, name, pattern, path):
    """PEFT's rule: the first key that the path ends with, or the value for all."""
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", path):
            return value
    return config[name]


def _rank_and_scaling(config, path):
    rank, alpha = _value(config, "r", "rank_pattern", path), _value(config, "lora_alpha", "alpha_pattern", path)
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _check_config(config):
    for name in ("r", "lora_alpha"):
        if not isinstance(config.get(name), (int, float)):
            raise ValueError(f"adapter_config.json: {name}: expected a number, got {config.get(name)!r}")
    wanted = {"peft_type": "LORA", "bias": "none"}
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise ValueError(f"adapter_config.json: {name}: expected {value!r}, got {config[name]!r}")
    for name in ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "layer_replication",
                 "alora_invocation_tokens"):
        if config.get(name):
            raise ValueError(f"adapter_config.json: {name}: expected an adapter without it, got {config[name]!r}")


def _pairs(tensors):
    """{module: (A, B, is of an embedding)}"""
    pairs = {}
    for name, tensor in tensors.items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            raise ValueError(f"{name}: expected factors of LoRA alone, {PREFIX}..lora_A.weight and ..lora_B.weight")
        pairs.setdefault(match["module"], {"embedding": match["kind"] is not None})[match["factor"]] = tensor
    for module, pair in pairs.items():
        missing = {"A", "B"} - pair.keys()
        if missing:
            raise ValueError(f"{PREFIX}{module}: expected lora_A and lora_B, found no lora_{missing.pop()}")
    return {module: (pair["A"], pair["B"], pair["embedding"]) for module, pair in pairs.items()}


def _path_of(key):
    """Of the module that PEFT wrapped: several parameters of one are wrapped one around the other."""
    return re.sub(r"(\.base_layer)+$", "", key)


def _fitting(module, A, B):
    """[(parameter, whether in and out are swapped)]: which of its weights the factors are for."""
    fitting = []
    for name in parameters_of(module):
        E, first, second = getattr(module, name).shape
        inputs, outputs = (first, second) if module.is_transposed else (second, first)
        sizes = (A.shape[1], B.shape[0])
        fitting += [(name, swapped) for swapped, wanted in ((False, (inputs, outputs)), (True, (outputs, inputs)))
                    if sizes == wanted and A.shape[0] == B.shape[1] and A.shape[0] % E == 0]
    return fitting


def _are_swapped(config, fittings):
    """Whether PEFT stored in and out of the experts swapped. Square weights alone do not tell."""
    told = {swapped[0] for swapped in ([swapped for _, swapped in fitting] for fitting in fittings) if len(swapped) == 1}
    if len(told) > 1:
        raise ValueError("experts: expected in and out of every adapter in the same order, got both orders")
    if told:
        return told.pop()
    version = re.match(r"(\d+)\.(\d+)\.(\d+)", config.get("peft_version") or "")
    if version is None or tuple(map(int, version.groups())) < NOT_SWAPPED_SINCE:
        raise ValueError(
            "adapter_config.json: peft_version: expected 0.19.1 or later, as the weights are square and earlier versions "
            f"swapped in and out of some, got {config.get('peft_version')!r}; save the adapter again with a later PEFT"
        )
    return False


def _of_experts(config, key, module, pair, swapped):
    """((path, parameter), Factors)"""
    A, B, _ = pair
    path = _path_of(key)
    name = next(name for name, order in _fitting(module, A, B) if order == swapped)
    E = getattr(module, name).shape[0]
    rank, scaling = _rank_and_scaling(config, f"{path}.{name}")
    if A.shape[0] != E * rank:
        raise ValueError(f"{PREFIX}{key}.lora_A.weight: expected {E} experts of rank {rank}, {E * rank} rows, got {A.shape[0]}")
    A, B = adapter_views(A, B, E, layout="peft_transposed" if swapped else "peft")
    return (path, name), Factors(A, B, scaling, key)


def adapter_of(saved, base: Optional[str]):
    """The Adapter of a folder that was read. Raises ValueError that names what is wrong with it."""
    config = saved.config
    _check_config(config)
    pairs = _pairs(saved.tensors)
    name = base or config.get("base_model_name_or_path")
    if not name:
        raise ValueError("base: expected the folder or name of the model, which adapter_config.json does not say")
    model = base_model(str(name), {_path_of(key) for key in pairs})
    of_experts = {key: model.experts[_path_of(key)] for key in pairs if _path_of(key) in model.experts}
    if not of_experts:
        raise ValueError("path: expected an adapter with experts in it, got one of " + ", ".join(sorted({*pairs})[:3]))
    fittings = {key: _fitting(module, *pairs[key][:2]) for key, module in of_experts.items()}
    for key, fitting in fittings.items():
        if not fitting:
            module, (A, B, _) = of_experts[key], pairs[key]
            shapes = ", ".join(f"{name} {list(getattr(module, name).shape)}" for name in parameters_of(module))
            raise ValueError(
                f"{PREFIX}{key}: expected factors [E * r, in] and [out, r * E] of {shapes}, got {list(A.shape)} and "
                f"{list(B.shape)}"
            )
    swapped = _are_swapped(config, fittings.values())
    experts = dict(_of_experts(config, key, module, pairs[key], swapped) for key, module in of_experts.items())
    others = {key: Factors(A, B, _rank_and_scaling(config, key)[1], key, embedding)
              for key, (A, B, embedding) in pairs.items() if key not in of_experts}
    return Adapter(config, model, experts, others)
