"""What torchrun starts: the kernels of a rank are prewarmed, or it makes a training step that may compile none.

    torchrun --nproc-per-node 2 prewarmed_job.py prewarm | step ROW FOLDER"""

import os
import pathlib
import sys

import torch
import torch.distributed as dist

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "pytorch"))

import smlora  # noqa: E402
import smlora.transformers  # noqa: E402
from rows import adapted  # noqa: E402
from transformers.distributed import DistributedConfig  # noqa: E402

ROWS = {
    "ep": dict(fsdp_size=2, ep_size=2),
    "ep_tp": dict(tp_size=2, ep_size=2),
    "ep_all_reduce": dict(tp_size=2, ep_size=2, ep_implementation="all_reduce"),
    "tp": dict(tp_size=2),
    "fsdp": dict(fsdp_size=2),
}
TOKENS = 38


def main(what, row, folder):
    model = adapted(pathlib.Path(folder), dtype=torch.bfloat16, distributed_config=DistributedConfig(**ROWS[row]))
    if what == "prewarm":
        assert smlora.prewarm(model, [TOKENS])["kernels"] > 0
        return
    torch.manual_seed(7)
    ids = torch.randint(3, 97, (2, TOKENS // 2))
    model(input_ids=ids, labels=ids).loss.backward()
    counters = smlora.cache_stats()
    assert counters["compiles"] == 0 and counters["disk_hits"] > 0, counters


if __name__ == "__main__":
    torch.set_num_threads(1)
    smlora.transformers.register()
    dist.init_process_group("gloo")
    main(*sys.argv[1:])
    dist.barrier()
    dist.destroy_process_group()
    print(f"rank {os.environ['RANK']}: ok")
