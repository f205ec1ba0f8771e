"""The rows of the matrix of docs/distributed.md: how each spreads a model with adapters over ranks."""

import functools

import torch
import torch.distributed as dist
from peft import PeftModel
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(
        folder / "model", experts_implementation="smlora", attn_implementation="eager", dtype=torch.float32, **options
    )


def adapted(folder, **options):
    return PeftModel.from_pretrained(load(folder, **options), folder / "adapter", is_trainable=True).train()


def layers_of(model):
    return model.base_model.model.model.layers


def mesh_of_ranks():
    return dist.init_device_mesh("cpu", (dist.get_world_size(),))


def ddp(folder):
    return torch.nn.parallel.DistributedDataParallel(adapted(folder))


def fsdp2_layers(folder):
    model, mesh = adapted(folder), mesh_of_ranks()
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp2_experts(folder):
    """Experts are units of their own, within those of their layers."""
    model, mesh = adapted(folder), mesh_of_ranks()
    for layer in layers_of(model):
        fully_shard(layer.mlp.experts.get_base_layer(), mesh=mesh)
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp2_adapters(folder, mesh=None):
    """Each factor of an adapter is a unit of its own."""
    model, mesh = adapted(folder), mesh or mesh_of_ranks()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lora_" in name:
            fully_shard(module, mesh=mesh)
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def hsdp_adapters(folder):
    """Sharded over two ranks, replicated over the others."""
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size() // 2, 2), mesh_dim_names=("replicate", "shard"))
    return fsdp2_adapters(folder, mesh)


def fsdp1(folder):
    model = adapted(folder)
    policy = functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={type(layers_of(model)[0])})
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu"))


def transformers(**sizes):
    return functools.partial(adapted, distributed_config=DistributedConfig(**sizes))


def ep_checkpointed(folder):
    model = adapted(folder, distributed_config=DistributedConfig(fsdp_size=2, ep_size=2))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return model


ROWS = {
    "ddp": ddp,
    "fsdp2_layers": fsdp2_layers,
    "fsdp2_experts": fsdp2_experts,
    "fsdp2_adapters": fsdp2_adapters,
    "hsdp_adapters": hsdp_adapters,
    "fsdp1": fsdp1,
    "transformers_fsdp": transformers(fsdp_size=2),
    "ep": transformers(fsdp_size=2, ep_size=2),
    "ep_checkpointed": ep_checkpointed,
    "ep_tp": transformers(tp_size=2, ep_size=2),
    "ep_tp_all_to_all": transformers(tp_size=2, ep_size=2, ep_implementation="all_to_all"),
    "ep_all_reduce": transformers(tp_size=2, ep_size=2, ep_implementation="all_reduce"),
    "tp": transformers(tp_size=2),
    "ep_x_fsdp": transformers(fsdp_size=4, ep_size=2),
    "ep_of_4": transformers(fsdp_size=4, ep_size=4),
    "ep_x_tp_x_fsdp": transformers(tp_size=2, fsdp_size=2, ep_size=2),
    "ep_of_4_x_tp": transformers(tp_size=2, fsdp_size=2, ep_size=4),
    "tp_x_fsdp": transformers(tp_size=2, fsdp_size=2),
}
