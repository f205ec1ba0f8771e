"""The model under an adapter, without its weights: what its experts look like, and what its checkpoint calls them."""

import torch


class BaseModel:
    """`modules`: the paths of all of its modules. `experts`: {path: module} of those whose implementation one can choose."""

    def __init__(self, model):
        self._model = model
        self.modules = {path for path, _ in model.named_modules()}
        self.experts = {path: module for path, module in model.named_modules() if hasattr(module, "is_transposed")}

    def names_in_checkpoint(self, name, tensor):
        """{name: part} of a parameter as the model's checkpoint stores it, by Transformers' own conversion."""
        from transformers.core_model_loading import revert_weight_conversion

        return revert_weight_conversion(self._model, {name: tensor})


def _classes_of(config):
    import transformers

    named = [getattr(transformers, name, None) for name in config.architectures or ()]
    return [model._from_config for model in named if model is not None] + [transformers.AutoModelForCausalLM.from_config]


def base_model(name, paths):
    """The BaseModel that has modules at all of `paths`, on the meta device. `name`: a folder, or the name of a repository,
    with a config.json. Raises ValueError that says what is missing."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"base: expected a model with a config.json that Transformers reads, got {name!r}: {error}") from None
    missing = set(paths)
    for make in _classes_of(config):
        try:
            with torch.device("meta"):
                model = BaseModel(make(config))
        except ValueError:  # of AutoModelForCausalLM, which has no class for some configs
            continue
        missing = paths - model.modules
        if not missing:
            return model
    raise ValueError(
        f"base: expected the model that the adapter was trained on, which has a module {min(missing)}; {name!r} has none"
    )
