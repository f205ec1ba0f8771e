"""Training jobs of all kinds, each of which is prewarmed in one process and makes a step in another:

    python jobs.py prewarm | step NAME..

prints {name: report of prewarming, or counters of the cache after the step}; {name: {"error": ..}} where it fails."""

import contextlib
import json
import sys

import smlora
import smlora.transformers as st
import torch
import transformers
from models import CONFIGS, build, loss_of, tokens, with_adapter

BF16 = torch.bfloat16


def adapted(name, dtype=BF16, prepare=with_adapter, **sizes):
    model = build(name, "smlora", dtype=dtype, **sizes)
    return prepare(model).train()


def checkpointed(model):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return with_adapter(model)


def quantised(model):
    return with_adapter(st.quantize_experts(model, "nf4"))


def arranged(encoding):
    return lambda model: with_adapter(st.arrange_experts(st.quantize_experts(model, encoding)))


def in_bf16(model):
    return with_adapter(model).to(BF16)


def one_parameter(model):
    return with_adapter(model, target_parameters=["mlp.experts.down_proj"])


def attention_too(model):
    return with_adapter(model, target_modules=["q_proj"])


def several_ranks(model):
    return with_adapter(model, rank_pattern={r"layers\.0\..*": 8})


def experts_alone(config, **sizes):
    """A class of experts whose activation or norm is the model's own."""
    family, experts, config = config
    modeling = __import__(f"transformers.models.{family}.modeling_{family}", fromlist=[experts])
    config = getattr(transformers, config)()
    sizes = dict(num_experts=6, num_local_experts=6, n_routed_experts=6, hidden_size=32, moe_hidden_size=32,
                 moe_intermediate_size=24, intermediate_size=24, moe_latent_size=None, num_experts_per_tok=2) | sizes
    for name, size in sizes.items():
        if hasattr(config, name):
            setattr(config, name, size)
    config._experts_implementation = "smlora"
    module = getattr(modeling, experts)(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    return module.to(BF16).requires_grad_(False)


OWN = {
    "deepseek_v4": ("deepseek_v4", "DeepseekV4Experts", "DeepseekV4Config"),
    "inkling2": ("inkling2", "Inkling2Experts", "Inkling2TextConfig"),
    "muse_spark": ("muse_spark", "MuseSparkExperts", "MuseSparkTextConfig"),
    "nemotron_h": ("nemotron_h", "NemotronHExperts", "NemotronHConfig"),
}
JOBS = {name: lambda name=name: adapted(name) for name in CONFIGS} | {
    "without adapters": lambda: build("qwen3_moe", "smlora", dtype=BF16).requires_grad_(False).train(),
    "fp32": lambda: adapted("mixtral", torch.float32),
    "fp16": lambda: adapted("olmoe", torch.float16),
    "autocast": lambda: adapted("qwen3_moe", torch.float32),
    "checkpointed": lambda: adapted("qwen3_moe", prepare=checkpointed),
    "quantised": lambda: adapted("qwen3_moe", prepare=quantised, hidden_size=64, moe_intermediate_size=64),
    **{f"arranged {encoding}": lambda encoding=encoding: adapted(
        "qwen3_moe", prepare=arranged(encoding), hidden_size=128, moe_intermediate_size=128)
       for encoding in ("mxfp4", "nf4", "nvfp4", "fp8")},
    "adapters in bf16": lambda: adapted("qwen3_moe", prepare=in_bf16),
    "one parameter": lambda: adapted("gpt_oss", prepare=one_parameter),
    "attention too": lambda: adapted("mixtral", prepare=attention_too),
    "several ranks": lambda: adapted("qwen3_moe", prepare=several_ranks),
} | {f"{name} alone": lambda config=config: experts_alone(config) for name, config in OWN.items()}


def precision_of(name):
    return torch.autocast("cpu", BF16) if name == "autocast" else contextlib.nullcontext()


def prewarm(name):
    with precision_of(name):
        return smlora.prewarm(JOBS[name](), [38])


def step(name):
    model = JOBS[name]()
    if name.endswith(" alone"):
        x = torch.randn(38, 32, dtype=BF16, requires_grad=True)
        gates = torch.rand(38, 2, requires_grad=True)
        model(x, torch.rand(38, 6).argsort(1)[:, :2], gates).float().sum().backward()
    else:
        if not any(parameter.requires_grad for parameter in model.parameters()):
            model.enable_input_require_grads()
        with precision_of(name):
            loss = loss_of(model, tokens())
        loss.backward()
    return smlora.cache_stats()


def outcome(function, name):
    try:
        return function(name)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    what, *names = sys.argv[1:]
    print(json.dumps({name: outcome({"prewarm": prewarm, "step": step}[what], name) for name in names or JOBS}))
