"""The baselines of ``training``: the platform's own loop without Ray.

``torchrun --nproc-per-node N -m benchmarks._training_torchrun SPEC FOLDER``, or with plain
``python -m`` as one process. Each epoch's checkpoint is written, as by hand one would.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from schemas.jobfile import JobSpec
from workers.files import write_atomic
from workers.task import load_task
from workers.training.loop import Metrics, run
from workers.training.steps import Step


class TorchrunEngine:
    """What ``torchrun`` gives: a rank, a world, a process group; and a folder to write to."""

    def __init__(self, folder: Path) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        self._folder = folder

    def restore(self) -> bytes | None:
        """A benchmark begins anew."""
        return None

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Write the checkpoint, and wait for the others."""
        if self.rank == 0 and checkpoint is not None:
            write_atomic(self._folder / "checkpoint.pt", checkpoint)
            with (self._folder / "metrics.jsonl").open("a") as file:
                file.write(f"{metrics}\n")
        if self.world_size > 1:
            dist.barrier()

    def beat(self) -> None:
        """Nothing watches."""

    def live(self, step: Step) -> None:
        """Nobody looks."""


def main(spec_file: Path, folder: Path) -> None:
    """Train."""
    logging.basicConfig(level=logging.WARNING)
    spec = JobSpec.model_validate_json(spec_file.read_text())
    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    engine = TorchrunEngine(folder)
    if engine.world_size > 1:
        dist.init_process_group("nccl" if engine.device.type == "cuda" else "gloo")
    try:
        run(load_task(spec.entrypoint, spec.config, spec.seed), spec, engine)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
