"""What the platform's loop costs per step, against a loop written by hand, in one process.

``python -m benchmarks._training_overhead FOLDER ROUNDS`` prints a JSON list with, per round,
the microseconds of a step of ``ours`` and of ``bare``, as ``[wall, cpu]``. The loop written
by hand trains the same net on the same batches with the same optimizer and the same
clipping, and checks, measures and tells nothing.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._training_marks import read, step_us
from benchmarks._training_task import TimedDigits
from schemas.jobfile import JobSpec
from workers.task import load_task
from workers.training.local import LocalEngine
from workers.training.loop import run

EPOCHS = 3
CONFIG = {"repeat": 10, "batch_size": 64, "width": 0.25}
"""A small net: the smaller a step, the larger the share of what surrounds it."""


def spec_of(marks: Path) -> JobSpec:
    """A job for so many epochs that notes its steps at ``marks``."""
    return JobSpec.model_validate(
        {
            "name": "bench",
            "task": "benchmarks._training_task:TimedDigits",
            "config": {**CONFIG, "marks": str(marks)},
            "stop": {"max_epochs": EPOCHS, "patience": EPOCHS, "require_target": False},
        }
    )


def device() -> torch.device:
    """Where both compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bare(task: TimedDigits, spec: JobSpec) -> None:
    """The loop as one writes it by hand."""
    torch.manual_seed(spec.seed)
    where = device()
    net = task.model().to(where)
    optimizer = task.optimizer(net)
    x, y = task.splits().train[:]  # type: ignore[index]
    generator = torch.Generator().manual_seed(spec.seed)
    clip = spec.training.clip_norm
    for _ in range(EPOCHS):
        net.train()
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x), task.batch_size):
            rows = order[start : start + task.batch_size]
            batch = task.augment(x[rows], generator).to(where)
            loss = task.loss(net(batch), y[rows].to(where))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
        if where.type == "cuda":
            torch.cuda.synchronize()


def measure(side: str, marks: Path) -> tuple[float, float]:
    """Microseconds per step of one side: wall, CPU."""
    spec = spec_of(marks)
    task: Any = load_task(spec.entrypoint, spec.config, spec.seed)
    if side == "ours":
        run(task, spec, LocalEngine(spec.stop.metric, device=device()))
    else:
        bare(task, spec)
    (found,) = read(marks)
    samples = len(task.splits().train)
    return step_us(found, samples // task.batch_size)


def main(folder: Path, rounds: int) -> None:
    """Alternate; who begins changes each round."""
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    found = []
    for number in range(rounds):
        order = ("ours", "bare") if number % 2 == 0 else ("bare", "ours")
        found.append({side: measure(side, folder / f"{side}{number}") for side in order})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
