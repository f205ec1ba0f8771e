"""What PEFT does with a model that is spread over ranks before its forward and after it: finding its targets, and saving."""

import functools

from smlora.transformers._names import is_ours
from smlora.transformers._parallel import is_spread
from smlora.transformers._patching import patch
from smlora.transformers._weights import PARAMETERS, UNGATED_PARAMETERS


def _is_module(model, path):
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _get_tp_plan_and_mesh(original):
    """PEFT takes the plan of a parameter for that of a linear layer, and fails. What a rank holds of experts is known here."""

    @functools.wraps(original)
    def get_tp_plan_and_mesh(model, current_key):
        config = getattr(model, "config", None)
        if config is not None and is_ours(config) and not _is_module(model, current_key):
            return None, None
        return original(model, current_key)

    return get_tp_plan_and_mesh


def _get_peft_model_state_dict(original):
    """Of whole tensors; every rank has to call it. The weights of experts, which are in no adapter, are not gathered."""

    @functools.wraps(original)
    def get_peft_model_state_dict(model, state_dict=None, **named):
        if state_dict is None and any(is_spread(parameter) for parameter in model.parameters()):
            experts = {*PARAMETERS, *UNGATED_PARAMETERS}
            state_dict = {
                key: tensor for key, tensor in model.state_dict().items()
                if not is_spread(tensor) or key.rpartition(".")[2] not in experts or ".modules_to_save." in key
            }
        found = original(model, state_dict=state_dict, **named)
        return {key: tensor.full_tensor() if is_spread(tensor) else tensor for key, tensor in found.items()}

    return get_peft_model_state_dict


def _get_tuner_state_dict_key_prefixes(original):
    """PEFT 0.21 looks for its tensors below names that are in no key of FSDP1's state_dict, and would save nothing."""

    @functools.wraps(original)
    def get_prefixes(*arguments, **named):
        prefixes = original(*arguments, **named)
        return prefixes | {prefix.replace("_fsdp_wrapped_module.", "") for prefix in prefixes}

    return get_prefixes


def register_peft_on_ranks():
    from peft import peft_model
    from peft.tuners import tuners_utils
    from peft.tuners.lora import model as lora_model

    for owner, name, around in (
        (peft_model, "get_peft_model_state_dict", _get_peft_model_state_dict),
        (lora_model, "get_tp_plan_and_mesh", _get_tp_plan_and_mesh),
        (tuners_utils, "_get_tuner_state_dict_key_prefixes", _get_tuner_state_dict_key_prefixes),
    ):
        if hasattr(owner, name):  # else an older PEFT, without the fault
            patch(owner, name, around)
