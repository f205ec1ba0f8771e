from smlora.scattermoe.kernels import lora_ops, ops

__all__ = ["lora_ops", "ops"]
