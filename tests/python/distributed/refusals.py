"""What torchrun starts: what cannot be done with experts on several ranks says so, on every rank.

    torchrun --nproc-per-node 2 refusals.py FOLDER"""

import datetime
import os
import pathlib
import sys

import torch.distributed as dist

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "pytorch"))

import pytest  # noqa: E402
import smlora.transformers  # noqa: E402
import torch  # noqa: E402
from models import TARGETS, with_adapter  # noqa: E402
from peft import LoraConfig, PeftModel  # noqa: E402
from peft.utils.other import fsdp_auto_wrap_policy  # noqa: E402
from rows import load  # noqa: E402
from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: E402
from transformers.distributed import DistributedConfig  # noqa: E402

IDS = torch.arange(3, 13)[None]


def main(folder):
    spread = dict(distributed_config=DistributedConfig(fsdp_size=2, ep_size=2))
    smlora.transformers.register()
    model = PeftModel.from_pretrained(load(folder, **spread), folder / "adapter")
    with pytest.raises(NotImplementedError, match="down_proj is spread over ranks, and PEFT cannot merge .* save the adapter"):
        model.merge_adapter()

    with pytest.raises(NotImplementedError, match="gate_up_proj: expected all 12 experts on each rank, got .* spread"):
        smlora.transformers.quantize_experts(load(folder, **spread), "nf4")

    model = with_adapter(load(folder, **spread), "first")
    weights = "float32 [12, 48, 32], 6 here, float32 [12, 32, 24], 6 here"
    assert {layer.weights for layer in smlora.transformers.status(model)} == {weights}
    model.add_adapter("second", LoraConfig(r=4, target_modules=[], target_parameters=TARGETS))
    model.base_model.set_adapter(["first", "second"])
    with pytest.raises(NotImplementedError, match="is spread over ranks: 2 adapters are active at once on .*keep one adapter"):
        model(input_ids=IDS)

    with pytest.raises(ValueError, match='ep_implementation: expected "auto", .* got "deepgemm_megamoe"'):
        sizes = dict(tp_size=2, ep_size=2, ep_implementation="deepgemm_megamoe")
        load(folder, distributed_config=DistributedConfig(**sizes))

    model = PeftModel.from_pretrained(load(folder), folder / "adapter", is_trainable=True)
    model = FullyShardedDataParallel(model, auto_wrap_policy=fsdp_auto_wrap_policy(model), use_orig_params=True,
                                     device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match="lora_[AB]: expected a matrix, got .*: FSDP1 shards it .*wrap decoder layers"):
        model(input_ids=IDS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=180))
    main(pathlib.Path(sys.argv[1]))
    dist.destroy_process_group()
    print(f"rank {os.environ['RANK']}: ok")
