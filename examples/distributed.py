"""Trains LoRA adapters on experts that are spread over ranks, with Transformers' Trainer:

    torchrun --nproc-per-node 2 examples/distributed.py --fsdp 2 --ep 2 --save adapter [--model Qwen/Qwen3-30B-A3B] [--steps 10]

fsdp x tp is the number of ranks; ep is a multiple of tp that divides this number. Without --model it trains a small random
model; without a GPU it runs on the CPU. It saves the adapter as one process would."""

import argparse
import pathlib
import tempfile

import smlora.transformers
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM, Trainer, TrainingArguments
from transformers.distributed import DistributedConfig


def small_model():
    """The folder of a checkpoint that all ranks of this machine see."""
    folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(folder)
    if dist.get_rank() == 0:
        config = Qwen3MoeConfig(
            vocab_size=256, hidden_size=64, intermediate_size=128, moe_intermediate_size=32, num_experts=16,
            num_experts_per_tok=4, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            norm_topk_prob=True, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        )
        Qwen3MoeForCausalLM(config).save_pretrained(folder[0])
    dist.barrier()
    return folder[0]


def text(length=64):
    """What to learn: this file, in pieces of `length` bytes."""
    content = list(pathlib.Path(__file__).read_bytes())
    pieces = [content[start:start + length] for start in range(0, len(content) - length, length)]
    return [{"input_ids": piece, "labels": piece} for piece in pieces]


def main(arguments):
    torch.manual_seed(0)
    smlora.transformers.register()  # before from_pretrained
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model or small_model(), experts_implementation="smlora",
        distributed_config=DistributedConfig(fsdp_size=arguments.fsdp, tp_size=arguments.tp, ep_size=arguments.ep),
    )
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=[], target_parameters=targets))
    trainer = Trainer(model, TrainingArguments(
        output_dir=arguments.save, max_steps=arguments.steps, per_device_train_batch_size=arguments.batch // arguments.fsdp,
        learning_rate=1e-2, lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to="none",
        use_cpu=not torch.cuda.is_available(),
    ), train_dataset=text())
    trainer.train()
    model.save_pretrained(arguments.save, is_main_process=dist.get_rank() == 0)  # on every rank


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint of a Mixture-of-Experts model")
    parser.add_argument("--fsdp", type=int, default=1, help="ranks that see different tokens [1]")
    parser.add_argument("--tp", type=int, default=1, help="ranks that share their tokens; needs GPUs [1]")
    parser.add_argument("--ep", type=int, default=1, help="ranks that hold different experts [1]")
    parser.add_argument("--steps", type=int, default=10, help="training steps [10]")
    parser.add_argument("--batch", type=int, default=8, help="sequences in a step, of all ranks together [8]")
    parser.add_argument("--save", required=True, help="the folder for the adapter")
    arguments = parser.parse_args()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    main(arguments)
    dist.destroy_process_group()
