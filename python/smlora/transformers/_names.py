"""What Transformers calls smlora."""

NAME = "smlora"
"""experts_implementation=.."""

DEEP_EP_NAME = "deep_ep_smlora"
"""The same behind axolotl's DeepEP, which brings the tokens to the ranks of their experts."""


def is_name_of_ours(implementation):
    return implementation in (NAME, DEEP_EP_NAME)


def is_ours(config):
    """Whether a model of this config has its experts computed by smlora."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return is_name_of_ours(getattr(text, "_experts_implementation", None))
