from smlora.scattermoe.kernels import grouped_gram, lora_ops, ops, single

__all__ = ["grouped_gram", "lora_ops", "ops", "single"]
