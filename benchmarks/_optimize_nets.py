"""The nets of the ``optimize`` benchmark: the examples' tasks, each trained once and kept.

``python -m benchmarks._optimize_nets NAME FOLDER`` trains one, unless FOLDER has it already.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks._harness import ROOT, note
from schemas.jobfile import JobSpec
from workers.files import write_atomic
from workers.task import Task, load_task
from workers.training.local import LocalEngine
from workers.training.loop import run

EXAMPLES = ROOT / "examples"
COSINE = {"kind": "cosine", "warmup_epochs": 1, "floor": 0.02}


@dataclass(frozen=True, slots=True)
class Net:
    """A trained net and what is asked of its variants. folder: of the example."""

    name: str
    folder: str | None
    task: str
    config: dict[str, Any]
    epochs: int
    optimize: dict[str, Any] = field(default_factory=dict)

    def spec(self) -> JobSpec:
        """Its job."""
        return JobSpec.model_validate(
            {
                "name": self.name,
                "task": self.task,
                "config": self.config,
                "training": {"schedule": COSINE},
                "stop": {
                    "max_epochs": self.epochs,
                    "patience": self.epochs,
                    "require_target": False,
                },
                "optimize": self.optimize,
            }
        )

    def digest(self) -> str:
        """Of what decides the weights."""
        text = [self.task, repr(sorted(self.config.items())), str(self.epochs), torch.__version__]
        if self.folder is not None:
            text += [p.read_text() for p in sorted((EXAMPLES / self.folder).glob("*.py"))]
        return hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]


STRICT = {"max_accuracy_drop": 0.02}
NETS = {
    net.name: net
    for net in (
        Net("digits", None, "workers.recipes.digits:Digits", {}, 15, STRICT),
        Net("exercises", "exercises", "task:Exercises", {"lr": 0.003, "turn": 0.6}, 15, STRICT),
        Net("tumours", "tumours", "task:Tumours", {}, 30, STRICT),
        Net(
            "mobilenet",
            "handwriting",
            "task:Handwriting",
            {"net": "mobilenet", "lr": 0.003, "batch_size": 64},
            12,
            STRICT,
        ),
        Net(
            "resnet",
            "handwriting",
            "task:Handwriting",
            {"net": "resnet", "lr": 0.002, "batch_size": 64},
            6,
            {**STRICT, "prune": [0.5, 0.75], "finetune_epochs": 6},
        ),
    )
}

QUICK = Net(
    "digits",
    None,
    "workers.recipes.digits:Digits",
    {"width": 0.25, "lr": 0.01},
    2,
    {"max_accuracy_drop": 0.5, "prune": [0.5], "finetune_epochs": 1, "max_trials": 3},
)
"""The smallest search that has a variant of each kind: to see that the benchmark runs."""


@contextmanager
def within(net: Net) -> Iterator[Task]:
    """The net's task, while its example is the working directory, as in a job."""
    before = Path.cwd()
    folder = str(EXAMPLES / net.folder) if net.folder is not None else None
    if folder is not None:
        sys.path.insert(0, folder)
        os.chdir(folder)
    try:
        yield load_task(net.task, net.config, 0, None)
    finally:
        os.chdir(before)
        if folder is not None:
            sys.path.remove(folder)
            for name in ("task", "nets"):  # the next example has modules of these names
                sys.modules.pop(name, None)


def trained(net: Net, task: Task, kept: Path) -> bytes:
    """The checkpoint of the net's best epoch, trained here unless ``kept`` has it."""
    path = kept / f"{net.name}-{net.digest()}.pt"
    if path.exists():
        return path.read_bytes()
    note(f"training {net.name}, {net.epochs} epochs")

    def told(metrics: Any) -> None:
        note(f"  epoch {metrics['epoch']:.0f}  accuracy {metrics['accuracy']:.4f}")

    engine = LocalEngine("accuracy", told)
    torch.set_num_threads(os.cpu_count() or 1)
    run(task, net.spec(), engine)
    kept.mkdir(parents=True, exist_ok=True)
    write_atomic(path, engine.best or b"")
    return engine.best or b""


if __name__ == "__main__":
    kept = Path(sys.argv[2]).resolve()  # before the example becomes the working directory
    with within(NETS[sys.argv[1]]) as found:
        trained(NETS[sys.argv[1]], found, kept)
