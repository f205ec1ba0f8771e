"""What Transformers calls smlora."""

NAME = "smlora"
"""experts_implementation=.."""


def is_ours(config):
    """Whether a model of this config has its experts computed by smlora."""
    return getattr(config.get_text_config(), "_experts_implementation", None) == NAME
