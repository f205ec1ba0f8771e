#!/usr/bin/env python3
"""GPU memory of a LoRA step of a whole model with quantised experts, beside the arithmetic of its tensors: published sizes, random
weights, adapters on all experts in fp32 with AdamW, gradient checkpointing, logits of 1024 tokens at a time.

    python benchmarks/quantised_memory.py                          the three runs of docs/quantised.md
    python benchmarks/quantised_memory.py qwen3-30b-a3b:int4:8     MODEL:ENCODING:RANK

Needs a GPU, Transformers, PEFT and smlora's package."""

import argparse
import copy
import gc
import json
import sys
import time

import peft
import torch
import transformers
from torch.utils.checkpoint import checkpoint

import smlora.transformers

PROJECTIONS = ("gate_up_proj", "down_proj")
RUNS = ["qwen3-30b-a3b:nf4:16", "gpt-oss-20b:mxfp4:16", "gpt-oss-120b:mxfp4:8"]
LOGITS_AT_ONCE = 1024


def gpt_oss(layers, experts):
    return transformers.GptOssConfig(num_hidden_layers=layers, num_local_experts=experts, attn_implementation="flex_attention")


MODELS = {
    "qwen3-30b-a3b": lambda: transformers.Qwen3MoeConfig(
        vocab_size=151936, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_experts=128,
        num_experts_per_tok=8, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        norm_topk_prob=True, decoder_sparse_step=1),
    "gpt-oss-20b": lambda: gpt_oss(24, 32),
    "gpt-oss-120b": lambda: gpt_oss(36, 128),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="*", default=RUNS, metavar="MODEL:ENCODING:RANK",
                        help=f"MODEL is one of {', '.join(MODELS)}")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    for run in arguments.run:
        if run.count(":") != 2 or run.split(":")[0] not in MODELS:
            parser.error(f"{run}: expected MODEL:ENCODING:RANK with one of {', '.join(MODELS)}")
    return arguments


def fill(module):
    """Gives the parameters of a module on the meta device random values on the GPU."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_meta:
                values = torch.empty_like(parameter, device="cuda").normal_(std=0.02)
                part._parameters[name] = torch.nn.Parameter(values, requires_grad=False)


def make(model, encoding):
    """The model, of which one layer's experts at a time were plain."""
    config = MODELS[model]()
    config._experts_implementation = "smlora"
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.device("cuda"):
        made.model.rotary_emb = type(made.model.rotary_emb)(config)
    first, *others = [layer.mlp for layer in made.model.layers]
    fill(first.experts)
    smlora.transformers.quantize_experts(first, encoding)
    for other in others:
        other.experts = copy.deepcopy(first.experts)
    fill(made)
    return made


def adapt(model, rank):
    paths = [f"model.layers.{i}.mlp.experts.{name}" for i in range(model.config.num_hidden_layers) for name in PROJECTIONS]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[], target_parameters=paths))
    adapted.enable_input_require_grads()
    adapted.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted.train()


def loss_of(model, ids):
    """The model's loss; logits, of which one token has 150 000 or more, never exist for all tokens at once."""
    base = model.get_base_model()
    hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]

    def of_some(hidden, labels):
        return torch.nn.functional.cross_entropy(base.lm_head(hidden).float(), labels, reduction="sum")

    parts = zip(hidden.split(LOGITS_AT_ONCE), ids[0, 1:].split(LOGITS_AT_ONCE), strict=True)
    return sum(checkpoint(of_some, *part, use_reentrant=False) for part in parts) / hidden.shape[0]


def measure(model, encoding, rank, tokens, steps):
    begin = time.monotonic()
    adapted = adapt(make(model, encoding), rank)
    sizes = {"experts": 0, "other weights": 0, "adapters": 0}
    for name, tensor in adapted.state_dict(keep_vars=True).items():
        kind = "adapters" if "lora_" in name else "experts" if ".experts." in name else "other weights"
        sizes[kind] += tensor.nbytes
    sizes["gradients and AdamW"] = 3 * sizes["adapters"]
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-4, fused=True)
    ids = torch.randint(0, 100000, (1, tokens), device="cuda")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(steps):
        loss = loss_of(adapted, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return {
        "tokens": tokens, "loss": loss.item(), "gib": {name: size / 2**30 for name, size in sizes.items()},
        "sum_gib": sum(sizes.values()) / 2**30, "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30, "seconds": time.monotonic() - begin,
    }


def main():
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        sys.exit("quantised_memory.py needs a GPU")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"peft {peft.__version__}; {arguments.tokens} tokens")
    smlora.transformers.register()
    results = {}
    for run in arguments.run:
        model, encoding, rank = run.split(":")
        result = results[run] = measure(model, encoding, int(rank), arguments.tokens, arguments.steps)
        parts = ", ".join(f"{name} {size:.1f}" for name, size in result["gib"].items())
        print(f"{run:26} peak {result['peak_gib']:6.2f} GiB (reserved {result['reserved_gib']:.2f})   "
              f"tensors {result['sum_gib']:6.2f}: {parts}   loss {result['loss']:.3f}, {result['seconds']:.0f} s", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
