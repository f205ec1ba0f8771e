"""The rows of the matrix of docs/distributed.md: how each spreads a model with adapters over ranks."""

import functools

import torch
import torch.distributed as dist
from peft import PeftModel
from torch.distributed.nn.functional import all_gather, all_reduce
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig


def is_zero(model):
    """Whether DeepSpeed runs it."""
    return type(model).__name__ == "DeepSpeedEngine"


def load(folder, dtype=torch.float32, **options):
    return AutoModelForCausalLM.from_pretrained(
        folder / "model", experts_implementation="smlora", attn_implementation="eager", dtype=dtype, **options
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


def transformers(prepare=lambda model: model, make=adapted, **sizes):
    return lambda folder: prepare(make(folder, distributed_config=DistributedConfig(**sizes)))


def checkpointed(model):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return model


def zero3(folder):
    import deepspeed

    model = checkpointed(adapted(folder))
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}, "zero_allow_untested_optimizer": True}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, config=config, optimizer=torch.optim.SGD(trained, lr=0.0))
    return engine


def deep_ep(folder):
    """What axolotl's DeepEP hands to the experts of a rank: the tokens that have a choice there, with local indices and -1 for
    choices elsewhere. Here every rank sees all tokens, and picks its own."""
    model = adapted(folder)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for layer in layers_of(model):
        experts = layer.mlp.experts.get_base_layer()
        experts.num_experts_global, experts.num_experts = experts.num_experts, experts.num_experts // ranks
        first = experts.local_expert_offset = rank * experts.num_experts
        for name in ("gate_up_proj", "down_proj"):
            local = experts._parameters[name].detach()[first:first + experts.num_experts].clone()
            experts._parameters[name] = torch.nn.Parameter(local, requires_grad=False)
        experts.forward = functools.partial(deep_ep_forward, experts, experts.forward)
    return model


def deep_ep_forward(experts, forward, x, index, gates):
    x, index, gates = (torch.cat(all_gather(tensor)) for tensor in (x, index, gates))
    local = index - experts.local_expert_offset
    local = torch.where((local >= 0) & (local < experts.num_experts), local, -1)
    (here,) = torch.where((local >= 0).any(1))
    partial = torch.zeros_like(x).index_add(0, here, forward(x[here], local[here], gates[here].float()))
    return all_reduce(partial).chunk(dist.get_world_size())[dist.get_rank()]


ROWS = {
    "ddp": ddp,
    "fsdp2_layers": fsdp2_layers,
    "fsdp2_experts": fsdp2_experts,
    "fsdp2_adapters": fsdp2_adapters,
    "hsdp_adapters": hsdp_adapters,
    "fsdp1": fsdp1,
    "zero3": zero3,
    "deep_ep": deep_ep,
    "transformers_fsdp": transformers(fsdp_size=2),
    "ep": transformers(fsdp_size=2, ep_size=2),
    "ep_checkpointed": transformers(checkpointed, fsdp_size=2, ep_size=2),
    "ep_of_all_parameters": transformers(make=load, fsdp_size=2, ep_size=2),
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
