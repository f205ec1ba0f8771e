"""What Transformers says if smlora is asked for before register()."""

import functools

from smlora.transformers._names import NAME
from smlora.transformers._patching import patch


def _get_correct_experts_implementation(original):
    @functools.wraps(original)
    def get_correct_experts_implementation(self, requested_experts):
        try:
            return original(self, requested_experts)
        except ValueError as error:
            if requested_experts != NAME:
                raise
            raise ValueError(
                f"{error} Call smlora.transformers.register() before the model is made, or import smlora.auto."
            ) from None

    return get_correct_experts_implementation


def install_hint():
    try:
        from transformers import PreTrainedModel
    except ImportError:
        return
    if hasattr(PreTrainedModel, "get_correct_experts_implementation"):
        patch(PreTrainedModel, "get_correct_experts_implementation", _get_correct_experts_implementation)
