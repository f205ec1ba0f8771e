"""Hugging Face Transformers and PEFT on smlora.

    import smlora.transformers
    smlora.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, experts_implementation="smlora")
    model = get_peft_model(model, LoraConfig(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]))

The experts of such a model are one operation, `smlora.moe_lora_mlp`, with PEFT's adapters inside it: no expert's weight is
ever added to its adapter in memory. Quantised experts are trained as they lie in the model, see docs/quantised.md. What cannot
be served runs as it would have, with one warning that says why."""

from smlora.transformers._conversion import dequantize_experts, quantize_experts
from smlora.transformers._experts import NAME, experts_forward
from smlora.transformers._peft import register_peft

__all__ = ["dequantize_experts", "quantize_experts", "register"]


def register():
    """Adds experts_implementation="smlora" to Transformers (5.0 or later) and lets PEFT's adapters on `gate_up_proj` and
    `down_proj` (target_parameters) go through it, if PEFT is installed. Everything else of PEFT is as before: several
    adapters of which one is active, disable_adapter, merging, saving and loading. Safe to call again."""
    from transformers.integrations import finegrained_fp8
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    # Before Transformers 5.3, FP8 experts have no dispatch.
    if hasattr(finegrained_fp8, "ALL_FP8_EXPERTS_FUNCTIONS"):
        finegrained_fp8.ALL_FP8_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    register_peft()
