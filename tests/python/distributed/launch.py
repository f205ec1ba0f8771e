"""How jobs are started: as users do it, on this machine's CPU."""

import os
import subprocess
import sys


def torchrun(script, ranks, *arguments, environment=os.environ, seconds=300):
    """The output of a job, which has to succeed on every rank."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", script, *arguments]
    environment = environment | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "SMLORA_TUNING": "record-only"}
    job = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    assert job.returncode == 0, job.stdout + job.stderr
    return job.stdout
