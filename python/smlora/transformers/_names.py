"""What Transformers calls smlora."""

NAME = "smlora"
"""experts_implementation=.."""


def is_ours(config):
    """Whether a model of this config has its experts computed by smlora."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(text, "_experts_implementation", None) == NAME
