"""The model that distributed.py trains, and how each mode spreads it over the ranks of the job."""

import zlib

import peft
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.distributed import DistributedConfig

PROJECTIONS = ("gate_up_proj", "down_proj")

# The vocabulary is a fifth of the model's 151,936: its product and the loss would outweigh four layers, not the model's 48.
QWEN3_30B_A3B = dict(
    vocab_size=32000, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_experts=128,
    num_experts_per_tok=8, num_attention_heads=32, num_key_value_heads=4, head_dim=128)
SMALL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_experts=8, num_experts_per_tok=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8)


def sizes(small):
    return SMALL if small else QWEN3_30B_A3B


def _values(name, tensor):
    """Of a whole parameter, the same on every rank and in every mode."""
    generator = torch.Generator(device=tensor.device).manual_seed(zlib.crc32(name.encode()))
    # Tokens stay as different as in a trained model, so that every expert has rows in every layer.
    deviation = 1.0 if "embed_tokens" in name else 0.02
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).normal_(0, deviation, generator=generator)


@torch.no_grad()
def _fill(model):
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # of norms, which are ones
            continue
        values = _values(name, parameter)
        if isinstance(parameter, DTensor):
            values = distribute_tensor(values, parameter.device_mesh, parameter.placements, src_data_rank=None).to_local()
            parameter = parameter.to_local()
        parameter.copy_(values)


def adapted(job, experts, distributed_config=None):
    """The model with adapters on all experts, made on the device; spread over the ranks as `distributed_config` says."""
    config = Qwen3MoeConfig(**sizes(job.small), num_hidden_layers=job.layers, norm_topk_prob=True,
                            pad_token_id=0, bos_token_id=0, eos_token_id=0)
    model = Qwen3MoeForCausalLM.from_pretrained(
        None, config=config, state_dict={}, dtype=job.dtype, device_map=job.device, experts_implementation=experts,
        distributed_config=distributed_config)
    paths = [f"model.layers.{i}.mlp.experts.{name}" for i in range(job.layers) for name in PROJECTIONS]
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=job.rank, lora_alpha=2 * job.rank, target_modules=[], target_parameters=paths))
    _fill(model)
    # Else the first layer computes no gradient of its input, as no layer of a deep model but one.
    model.enable_input_require_grads()
    return model.train()


class Ddp:
    def __init__(self, ranks):
        self.mesh = f"ddp {ranks}"
        self.averages = False

    def adapted(self, job, experts):
        return adapted(job, experts)

    def spread(self, job, model):
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=[job.device.index] if job.on_gpu else None)


class Fsdp2:
    """A unit for each decoder layer, and one for the rest."""

    def __init__(self, ranks):
        self.mesh = f"fsdp {ranks}"
        self.averages = False

    def adapted(self, job, experts):
        return adapted(job, experts)

    def spread(self, job, model):
        mesh = dist.init_device_mesh(job.device.type, (dist.get_world_size(),))
        for layer in model.base_model.model.model.layers:
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)


class ExpertParallel:
    """Transformers' own: experts over `ep` ranks and, where that leaves several, FSDP2 of the experts over the others. It
    shards the rest of the model over all ranks."""

    def __init__(self, ranks, ep):
        self.config = DistributedConfig(fsdp_size=ranks, ep_size=ep)
        self.mesh = f"experts: ep {ep} x fsdp {ranks // ep}; the rest: fsdp {ranks}"
        # Nothing else averages the gradients of adapters, which came after the model was spread.
        self.averages = True

    def adapted(self, job, experts):
        return adapted(job, experts, self.config)

    def spread(self, job, model):
        return model


def _expert_parallel_and_fsdp2(ranks):
    if ranks > 1 and ranks % 2:
        raise ValueError(f"--mode ep+fsdp2: expected 1 rank or an even number, got {ranks}")
    return ExpertParallel(ranks, max(1, ranks // 2))


MODES = {
    "ddp": Ddp,
    "fsdp2": Fsdp2,
    "ep": lambda ranks: ExpertParallel(ranks, ranks),
    "ep+fsdp2": _expert_parallel_and_fsdp2,
}
"""{name: how a model is spread over so many ranks}"""


def average(model):
    """The gradients of replicated parameters, over all ranks."""
    for parameter in model.parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
