"""Small random models of Transformers, adapters on their experts, and how two of a kind are compared."""

import peft
import smlora.transformers as st
import torch
import transformers
from reference import assert_close

st.register()

SIZES = dict(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2)
CONFIGS = {
    "qwen2_moe": ("Qwen2Moe", dict(intermediate_size=48, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2,
                                   shared_expert_intermediate_size=24)),
    "qwen3_moe": ("Qwen3Moe", dict(intermediate_size=48, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2,
                                   head_dim=8, norm_topk_prob=True)),
    "qwen3_next": ("Qwen3Next", dict(intermediate_size=48, moe_intermediate_size=24, num_experts=6,
                                     num_experts_per_tok=2, head_dim=8, shared_expert_intermediate_size=24,
                                     linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
                                     linear_value_head_dim=8, layer_types=["linear_attention", "full_attention"])),
    "olmoe": ("Olmoe", dict(intermediate_size=24, num_experts=6, num_experts_per_tok=2)),
    "mixtral": ("Mixtral", dict(intermediate_size=24, num_local_experts=6, num_experts_per_tok=2)),
    "deepseek_v3": ("DeepseekV3", dict(intermediate_size=48, moe_intermediate_size=24, n_routed_experts=6,
                                       num_experts_per_tok=2, n_group=2, topk_group=1, first_k_dense_replace=1,
                                       q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8,
                                       v_head_dim=8, num_key_value_heads=4)),
    "gpt_oss": ("GptOss", dict(intermediate_size=24, num_local_experts=6, num_experts_per_tok=2, head_dim=8,
                               layer_types=["full_attention", "full_attention"])),
}
TARGETS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def config_of(name, implementation, **sizes):
    prefix, particular = CONFIGS[name]
    config = getattr(transformers, f"{prefix}Config")(**(SIZES | particular | sizes))
    config._experts_implementation = implementation
    config._attn_implementation = "eager"
    return config


def build(name, implementation, device="cpu", dtype=torch.float32, **sizes):
    torch.manual_seed(5)
    model = getattr(transformers, f"{CONFIGS[name][0]}ForCausalLM")(config_of(name, implementation, dtype=dtype, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(device, dtype)


def with_adapter(model, adapter="default", **changes):
    config = peft.LoraConfig(**(dict(r=4, lora_alpha=8, target_modules=[], target_parameters=TARGETS) | changes))
    model = peft.get_peft_model(model, config, adapter_name=adapter)
    randomise(model)
    return model


def randomise(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)


def both(name, prepare=lambda model: model, **options):
    models = []
    for implementation in ("eager", "smlora"):
        model = build(name, implementation, **options)
        torch.manual_seed(6)
        models.append(prepare(model).train())
    return models


def tokens(device="cpu"):
    return torch.randint(3, 97, (2, 19), device=device)


def loss_of(model, ids):
    return model(input_ids=ids, labels=ids).loss


def compare(eager, fused, ids):
    losses = [loss_of(model, ids) for model in (eager, fused)]
    assert_close(losses[1], losses[0], torch.float32, "loss")
    for loss in losses:
        loss.backward()
    expected = {name: parameter.grad for name, parameter in eager.named_parameters() if parameter.requires_grad}
    got = {name: parameter.grad for name, parameter in fused.named_parameters() if parameter.requires_grad}
    assert got.keys() == expected.keys() and any("experts" in name for name in got)
    for name, gradient in expected.items():
        if gradient is None:
            assert got[name] is None, name
        else:
            # Through every layer, and rounded in both models.
            assert_close(got[name], gradient, torch.float32, name, factor=2)


def train(model, ids, steps):
    """The loss before each step of AdamW."""
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    history = []
    for _ in range(steps):
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append(float(loss.detach()))
    return history
