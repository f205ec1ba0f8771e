"""The modules of axolotl's scattermoe_lora.kernels: lora_ops, ops, single and grouped_gram."""

from smlora.scattermoe.kernels import grouped_gram, lora_ops, ops, single

__all__ = ["grouped_gram", "lora_ops", "ops", "single"]
