"""What torchrun starts: a training step of a row, compared with the same step in one process.

    torchrun --nproc-per-node 2 job.py ROW FOLDER

FOLDER has `model`, `adapter`, and `step.pt`, what one process computed."""

import datetime
import os
import pathlib
import sys

import torch
import torch.distributed as dist

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "pytorch"))

import smlora.transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402

TOLERANCE = 1e-5


def plain_name(name):
    """As PEFT saves it."""
    return name.replace("_fsdp_wrapped_module.", "").removeprefix("module.").replace(".default.", ".")


def check(what, got, expected):
    assert got.shape == expected.shape, f"{what}: expected {list(expected.shape)}, got {list(got.shape)}"
    error = float((got - expected).abs().max() / expected.abs().max())
    assert error < TOLERANCE, f"{what}: error {error:.2e}"


def is_spread_by_transformers(model):
    return getattr(model, "is_distributed_loading_by_transformers", False)


def average(model):
    """What Transformers' Trainer does for parameters that came after a model was spread."""
    for parameter in model.parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def gradients(model):
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model, with_grads=True):
            return {plain_name(name): p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient on rank {dist.get_rank()}"
            gradient = parameter.grad
            found[plain_name(name)] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()
    return found


def replicas_of(model):
    """(the number of ranks that see different tokens, which of them this is)"""
    config = getattr(model.config, "distributed_config", None) if is_spread_by_transformers(model) else None
    tp = 1 if config is None else config.tp_size
    return dist.get_world_size() // tp, dist.get_rank() // tp


def saved_adapter(model, folder):
    state = None
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
            state = model.state_dict()
    inner = model.module if hasattr(model, "module") else model
    inner.save_pretrained(folder, state_dict=state, is_main_process=dist.get_rank() == 0)
    dist.barrier()
    return load_file(folder / "adapter_model.safetensors")


def fused_calls():
    """A list that gets, for each call of the experts, whether both projections had an adapter inside; PEFT may add none itself."""
    from peft.tuners.lora.layer import ParamWrapper

    from smlora.transformers import _experts

    calls, mlp = [], _experts.moe_lora_mlp

    def record(*arguments, **named):
        calls.append(named["gate_up_lora"] is not None and named["down_lora"] is not None)
        return mlp(*arguments, **named)

    def refuse(self, *arguments):
        raise AssertionError(f"PEFT added an adapter to {self.parameter_name}")

    _experts.moe_lora_mlp = record
    ParamWrapper.get_delta_weight = ParamWrapper.get_delta_factors = refuse
    return calls


def main(row, folder):
    from rows import ROWS

    calls = fused_calls()
    expected = torch.load(folder / "step.pt")
    model = ROWS[row](folder)
    replicas, replica = replicas_of(model)
    ids = expected["ids"].chunk(replicas)[replica]
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert calls and all(calls), f"calls of the experts: {calls}"
    if is_spread_by_transformers(model):
        average(model)

    total = loss.detach().clone()
    dist.all_reduce(total)
    check("loss", total / dist.get_world_size(), expected["loss"])
    got = gradients(model)
    assert got.keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        check(f"gradient of {name}", got[name], gradient)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is not None:
                parameter -= expected["rate"] * parameter.grad
    saved = saved_adapter(model, folder / f"saved_by_{row}_of_{dist.get_world_size()}")
    assert saved.keys() == expected["trained"].keys(), f"saved {sorted(saved)}"
    for name, tensor in expected["trained"].items():
        check(f"saved {name}", saved[name], tensor)


if __name__ == "__main__":
    torch.set_num_threads(1)
    smlora.transformers.register()
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
    dist.barrier()
    dist.destroy_process_group()
    print(f"rank {os.environ['RANK']}: ok")
