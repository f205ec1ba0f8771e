"""What torchrun starts: a training step of each row, compared with the same step in one process.

    torchrun --nproc-per-node 2 job.py ROW FOLDER [ROW FOLDER ..]

FOLDER has `model`, `adapter`, and `step.pt`, what one process computed. Each rank runs each row in a process of its own, forked
from one that has loaded the libraries, for this takes longer than a row. What it prints, it writes into
FOLDER/ROW_of_RANKS_RANK.txt, with `ok` at the end if it succeeded."""

import contextlib
import datetime
import multiprocessing
import os
import pathlib
import sys

import torch
import torch.distributed as dist

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "pytorch"))

import smlora.transformers  # noqa: E402
from peft.tuners.lora.layer import ParamWrapper  # noqa: E402
from rows import ROWS, is_zero  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from smlora.transformers import _experts  # noqa: E402
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

TOLERANCE = 1e-5


def check(what, got, expected):
    assert got.shape == expected.shape, f"{what}: expected {list(expected.shape)}, got {list(got.shape)}"
    error = float((got - expected).abs().max() / expected.abs().max())
    assert error < TOLERANCE, f"{what}: error {error:.2e}"


def check_all(what, got, expected):
    assert got.keys() == expected.keys(), f"{what}: expected {sorted(expected)}, got {sorted(got)}"
    for name, tensor in expected.items():
        check(f"{what} {name}", got[name], tensor)


def plain_name(name):
    """As PEFT saves it."""
    return name.replace("_fsdp_wrapped_module.", "").removeprefix("module.").replace(".default.", ".")


def trained(model):
    return [(plain_name(name), parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def record_calls():
    """A list that gets (whether both projections had an adapter inside, rows) of each call of the experts. PEFT may add no
    adapter to a weight itself."""
    calls, mlp = [], _experts.moe_lora_mlp

    def record(x, *arguments, **named):
        calls.append((named["gate_up_lora"] is not None and named["down_lora"] is not None, x.shape[0]))
        return mlp(x, *arguments, **named)

    def refuse(self, *arguments):
        raise AssertionError(f"PEFT added an adapter to {self.parameter_name}")

    _experts.moe_lora_mlp = record
    ParamWrapper.get_delta_weight = ParamWrapper.get_delta_factors = refuse
    return calls


def replicas_of(model):
    """(how many parts the batch has, which of them is this rank's)"""
    tp = model.config.distributed_config.tp_size if getattr(model, "is_distributed_loading_by_transformers", False) else 1
    return dist.get_world_size() // tp, dist.get_rank() // tp


def average(model):
    """What Transformers' Trainer does with the gradients of parameters that came after a model was spread. Wrappers did it."""
    if not isinstance(model, (DistributedDataParallel, FullyShardedDataParallel)) and not is_zero(model):
        for _, parameter in trained(model):
            if not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()


def gradients(model):
    if is_zero(model):
        from deepspeed.utils import safe_get_full_grad

        return {name: safe_get_full_grad(parameter) for name, parameter in trained(model)}
    whole = contextlib.nullcontext()
    if isinstance(model, FullyShardedDataParallel):
        whole = FullyShardedDataParallel.summon_full_params(model, with_grads=True)
    with whole:
        found = {name: parameter.grad for name, parameter in trained(model)}
        lacking = [name for name, gradient in found.items() if gradient is None]
        assert not lacking, f"rank {dist.get_rank()} has no gradient of {lacking}"
        return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad.clone() for name, grad in found.items()}


def step(model, rate):
    with torch.no_grad():
        for _, parameter in trained(model):
            if parameter.grad is not None:  # FSDP1 may leave a rank nothing of it
                parameter -= rate * parameter.grad


def saved(model, folder):
    """What save_pretrained writes, called as each library says."""
    state = None
    if is_zero(model):
        state = model._zero3_consolidated_16bit_state_dict()
    elif isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
            state = model.state_dict()
    inner = model.module if hasattr(model, "module") else model
    inner.save_pretrained(folder, state_dict=state, is_main_process=dist.get_rank() == 0)
    dist.barrier()
    return load_file(folder / "adapter_model.safetensors")


def main(row, folder):
    calls = record_calls()
    expected = torch.load(folder / "step.pt")
    model = ROWS[row](folder)
    replicas, replica = replicas_of(model)
    ids = expected["ids"].chunk(replicas)[replica]
    loss = model(input_ids=ids, labels=ids).loss
    model.backward(loss) if is_zero(model) else loss.backward()
    assert calls and {adapted for adapted, _ in calls} == {"trained" in expected}, f"calls of the experts: {calls}"
    if expected["idle"]:
        rows = torch.tensor([rows for _, rows in calls])
        dist.all_reduce(rows, op=dist.ReduceOp.MIN)
        assert rows.min() == 1, f"every rank had tokens: {rows.tolist()}"

    total = loss.detach().clone()
    dist.all_reduce(total)
    check("loss", total / dist.get_world_size(), expected["loss"])
    average(model)
    check_all("gradient of", gradients(model), expected["gradients"])
    if "trained" in expected:
        if is_zero(model):  # its optimiser has no rate
            adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
        else:
            adapter = expected["trained"]
            step(model, expected["rate"])
        check_all("saved", saved(model, folder / f"saved_by_{row}_of_{dist.get_world_size()}"), adapter)


def run(row, folder, output):
    """In a forked process."""
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    smlora.transformers.register()
    store = dist.FileStore(str(folder / f"{row}_of_{RANKS}.store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=RANK, world_size=RANKS, timeout=datetime.timedelta(seconds=180))
    main(row, folder)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    RANK, RANKS = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for row, folder in zip(sys.argv[1::2], map(pathlib.Path, sys.argv[2::2])):
        output = folder / f"{row}_of_{RANKS}_{RANK}.txt"
        process = multiprocessing.get_context("fork").Process(target=run, args=(row, folder, output))
        process.start()
        process.join()
        if process.exitcode == 0:
            with open(output, "a") as file:
                file.write("ok\n")
