"""Hugging Face Transformers and PEFT on smlora.

    import smlora.transformers
    smlora.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, experts_implementation="smlora")
    model = get_peft_model(model, LoraConfig(target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]))

The experts of such a model are one operation, `smlora.moe_lora_mlp`, with PEFT's adapters inside it: no expert's weight is
ever added to its adapter in memory. Quantised experts are trained as they lie in the model, see docs/quantised.md. What cannot
be served runs as it would have, with one warning that says why."""

from typing import Optional

from smlora.transformers._arranging import arrange_experts
from smlora.transformers._conversion import checked, dequantize_experts, quantize_experts
from smlora.transformers._experts import experts_forward
from smlora.transformers._hint import install_hint
from smlora.transformers._names import NAME
from smlora.transformers._parallel import register_parallel
from smlora.transformers._peft import register_peft
from smlora.transformers._status import status
from smlora.transformers._version import check_version

install_hint()

__all__ = ["arrange_experts", "dequantize_experts", "quantize_experts", "register", "status"]


def register(quantize_experts: Optional[str] = None, *, block: Optional[int] = None, double: bool = False) -> None:
    """Adds experts_implementation="smlora" to Transformers (5.7 or later) and lets PEFT's adapters on `gate_up_proj` and
    `down_proj` (target_parameters) go through it, if PEFT is installed. Everything else of PEFT is as before: several
    adapters of which one is active, disable_adapter, merging, saving and loading. Safe to call again.

    quantize_experts: "nf4", "fp4", "mxfp4", "nvfp4", "fp8", "mxfp8", "int8" or "int4": from_pretrained quantises the weights of
    experts of models with experts_implementation="smlora" while it loads them, one tensor after the other, on the device that
    device_map names, with and without a BitsAndBytesConfig for the other layers. block, double: as `smlora.quantize` takes
    them: register("nf4", block=64, double=True) is bitsandbytes' nf4 with bnb_4bit_use_double_quant. The last call holds.

    Raises ImportError for an earlier Transformers, which refuses implementations that it does not know."""
    check_version()
    from transformers.integrations import finegrained_fp8
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    from smlora.transformers._checkpoints import register_checkpoints
    from smlora.transformers._quantizers import register_quantizers

    if quantize_experts is not None:
        how = checked("quantize_experts", quantize_experts, block, double)
    elif block is not None or double:
        name, value = ("double", double) if block is None else ("block", block)
        raise ValueError(f"{name}: expected it together with quantize_experts, got {value!r} alone")
    else:
        how = None
    ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    # Of versions before it, FP8 experts have no dispatch.
    if hasattr(finegrained_fp8, "ALL_FP8_EXPERTS_FUNCTIONS"):
        finegrained_fp8.ALL_FP8_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    register_quantizers(how)
    register_checkpoints()
    register_parallel()
    register_peft()
