"""Every class of experts of the installed Transformers for which one can choose an implementation, on the meta device."""

import importlib
import inspect
import pkgutil

import torch
import transformers.models
from transformers import PreTrainedConfig


def families():
    """(the module of its models, whether one can choose an implementation for experts in it) of each family."""
    for package in pkgutil.iter_modules(transformers.models.__path__):
        name = f"transformers.models.{package.name}.modeling_{package.name}"
        spec = importlib.util.find_spec(name)
        if spec is not None:
            with open(spec.origin) as file:
                yield name, "@use_experts_implementation" in file.read()


def _classes():
    for name, offers_a_choice in families():
        if not offers_a_choice:
            continue
        module = importlib.import_module(name)
        for attribute in vars(module).values():
            # The decorator wraps __init__ and forward.
            if inspect.isclass(attribute) and attribute.__module__ == name and hasattr(attribute, "_apply_gate"):
                yield attribute


def configs_in(family):
    """The classes of configs of a family."""
    name = family.replace("modeling_", "configuration_")
    if importlib.util.find_spec(name) is None:
        return []
    return [
        config for config in vars(importlib.import_module(name)).values()
        if inspect.isclass(config) and issubclass(config, PreTrainedConfig) and config.__module__ == name
    ]


def _configs_of(experts):
    """Those of its family, the one that it names first."""
    named = inspect.signature(experts.__init__.__wrapped__).parameters["config"].annotation
    return sorted(configs_in(experts.__module__), key=lambda config: config is not named and config.__name__ != named)


def complete(config):
    """With a number for everything of experts that the config leaves open."""
    config.allow_global_per_layer_attribute_access = True  # of models whose layers differ
    for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size", "expert_intermediate_size"):
        if getattr(config, name, 8) is None:
            setattr(config, name, 8)
    for name in ("num_experts_per_tok", "top_k_experts"):
        if getattr(config, name, 2) is None:
            setattr(config, name, 2)
    return config


def experts_on_meta():
    """Yields (class, module), and (class, None) where no config makes one."""
    for experts in _classes():
        made = None
        further = [8 for _ in inspect.signature(experts.__init__.__wrapped__).parameters][2:]  # the intermediate size
        for config in _configs_of(experts):
            try:
                sizes = complete(config())
                with torch.device("meta"):
                    made = experts(sizes, *further)
                break
            except Exception:  # whatever a config of another part of the model raises
                continue
        yield experts, made
